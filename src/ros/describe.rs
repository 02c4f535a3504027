//! What a message struct looks like as a ROS type: names, fields, and the hash ROS 2 gives it.
//!
//! The description is read from the struct's serde implementation, the very code that encodes and decodes it, so it
//! cannot disagree with what goes over the wire. Hashes follow REP 2016 (RIHS01).

use std::collections::BTreeMap;

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, SeqAccess, Visitor},
};
use sha2::{Digest, Sha256};

/// Types a field can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// `uint32`, `string`, `byte`, …
    Primitive(&'static str),
    /// Another message, by its full name.
    Nested(&'static str),
    /// So many of the inner type, without a length on the wire.
    Array(Box<FieldType>, usize),
    /// Any number of the inner type.
    Sequence(Box<FieldType>),
}

impl std::fmt::Display for FieldType {
    /// As in a `.msg` file, with full names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Primitive(name) | Self::Nested(name) => f.write_str(name),
            Self::Array(inner, length) => write!(f, "{inner}[{length}]"),
            Self::Sequence(inner) => write!(f, "{inner}[]"),
        }
    }
}

/// Fields of one type in wire order.
pub type Fields = Vec<(&'static str, FieldType)>;

/// A type and every type it refers to.
#[derive(Clone, Debug)]
pub struct TypeDescription {
    /// Full name of the type described.
    pub name: &'static str,
    /// Its fields and those of all types it refers to, by full name.
    pub types: BTreeMap<&'static str, Fields>,
}

/// A struct that is not a ROS message.
#[derive(Debug, thiserror::Error)]
#[error("not a ROS type: {0}")]
pub struct NotARosType(String);

impl de::Error for NotARosType {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Describes `T`.
///
/// # Errors
/// [`NotARosType`] when `T` has parts that no ROS message can have (maps, options, enums).
pub fn describe<'de, T: Deserialize<'de>>() -> Result<TypeDescription, NotARosType> {
    let mut trace = Trace { types: BTreeMap::new(), last: None };
    T::deserialize(&mut trace)?;
    match trace.last {
        Some(FieldType::Nested(name)) => Ok(TypeDescription { name, types: trace.types }),
        _ => Err(NotARosType(std::any::type_name::<T>().to_owned())),
    }
}

impl TypeDescription {
    /// The type's hash, `RIHS01_` and 64 hexadecimal digits.
    #[must_use]
    pub fn hash(&self) -> String {
        let referenced: Vec<_> =
            self.types.iter().filter(|(name, _)| **name != self.name).map(|(name, f)| individual(name, f)).collect();
        let own = self.types.get(self.name).map(|fields| individual(self.name, fields)).unwrap_or_default();
        let text =
            format!("{{\"type_description\": {own}, \"referenced_type_descriptions\": [{}]}}", referenced.join(", "));
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().fold(String::from("RIHS01_"), |hash, byte| format!("{hash}{byte:02x}"))
    }
}

/// One type in the JSON form the hash is taken of; spaces and order are part of the standard.
fn individual(name: &str, fields: &Fields) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(field, kind)| {
            let (id, capacity, nested) = type_id(kind);
            format!(
                "{{\"name\": \"{field}\", \"type\": {{\"type_id\": {id}, \"capacity\": {capacity}, \
                 \"string_capacity\": 0, \"nested_type_name\": \"{nested}\"}}}}"
            )
        })
        .collect();
    format!("{{\"type_name\": \"{name}\", \"fields\": [{}]}}", fields.join(", "))
}

/// `type_id`, `capacity` and `nested_type_name` as `type_description_interfaces/FieldType` numbers them.
fn type_id(kind: &FieldType) -> (u8, usize, &'static str) {
    match kind {
        FieldType::Nested(name) => (1, 0, name),
        FieldType::Primitive(name) => {
            let id = match *name {
                "int8" => 2,
                "uint8" => 3,
                "int16" => 4,
                "uint16" => 5,
                "int32" => 6,
                "uint32" => 7,
                "int64" => 8,
                "uint64" => 9,
                "float32" => 10,
                "float64" => 11,
                "bool" => 15,
                "byte" => 16,
                "string" => 17,
                _ => 0,
            };
            (id, 0, "")
        }
        FieldType::Array(inner, length) => {
            let (id, _, nested) = type_id(inner);
            (id + 48, *length, nested)
        }
        FieldType::Sequence(inner) => {
            let (id, _, nested) = type_id(inner);
            (id + 144, 0, nested)
        }
    }
}

/// A deserializer that hands out empty values and notes what it was asked for.
struct Trace {
    types: BTreeMap<&'static str, Fields>,
    last: Option<FieldType>,
}

impl Trace {
    fn take(&mut self) -> Result<FieldType, NotARosType> {
        self.last.take().ok_or_else(|| NotARosType("a field without a type".to_owned()))
    }
}

macro_rules! primitives {
    ($($method:ident $visit:ident $name:literal $value:expr),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotARosType> {
            self.last = Some(FieldType::Primitive($name));
            visitor.$visit($value)
        })+
    };
}

macro_rules! refused {
    ($($method:ident),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, NotARosType> {
            Err(NotARosType(stringify!($method).to_owned()))
        })+
    };
}

impl<'de> de::Deserializer<'de> for &mut Trace {
    type Error = NotARosType;

    primitives! {
        deserialize_bool visit_bool "bool" false,
        deserialize_i8 visit_i8 "int8" 0,
        deserialize_i16 visit_i16 "int16" 0,
        deserialize_i32 visit_i32 "int32" 0,
        deserialize_i64 visit_i64 "int64" 0,
        deserialize_u8 visit_u8 "uint8" 0,
        deserialize_u16 visit_u16 "uint16" 0,
        deserialize_u32 visit_u32 "uint32" 0,
        deserialize_u64 visit_u64 "uint64" 0,
        deserialize_f32 visit_f32 "float32" 0.0,
        deserialize_f64 visit_f64 "float64" 0.0,
        deserialize_str visit_borrowed_str "string" "",
        deserialize_string visit_borrowed_str "string" "",
    }

    refused! {
        deserialize_any, deserialize_char, deserialize_option, deserialize_unit, deserialize_map,
        deserialize_identifier, deserialize_ignored_any,
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotARosType> {
        self.last = Some(FieldType::Sequence(Box::new(FieldType::Primitive("uint8"))));
        visitor.visit_borrowed_bytes(&[])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotARosType> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotARosType> {
        let value = visitor.visit_seq(Elements { trace: self, left: 1 })?;
        self.last = Some(FieldType::Sequence(Box::new(self.take()?)));
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, NotARosType> {
        let value = visitor.visit_seq(Elements { trace: self, left: length })?;
        // Rows of rows are one array: the wire has no other.
        self.last = Some(match self.take()? {
            FieldType::Array(inner, rows) => FieldType::Array(inner, rows * length),
            other => FieldType::Array(Box::new(other), length),
        });
        Ok(value)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotARosType> {
        let value = visitor.visit_newtype_struct(&mut *self)?;
        if name != "byte" {
            return Err(NotARosType(format!("newtype {name}")));
        }
        self.last = Some(FieldType::Primitive("byte"));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NotARosType> {
        let mut described = Vec::with_capacity(fields.len());
        let value = visitor.visit_seq(Members { trace: self, names: fields.iter(), described: &mut described })?;
        self.types.insert(name, described);
        self.last = Some(FieldType::Nested(name));
        Ok(value)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, NotARosType> {
        Err(NotARosType(name.to_owned()))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, NotARosType> {
        Err(NotARosType(name.to_owned()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, NotARosType> {
        Err(NotARosType(name.to_owned()))
    }
}

struct Elements<'t> {
    trace: &'t mut Trace,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = NotARosType;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, NotARosType> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.trace).map(Some)
    }
}

struct Members<'t> {
    trace: &'t mut Trace,
    names: std::slice::Iter<'static, &'static str>,
    described: &'t mut Fields,
}

impl<'de> SeqAccess<'de> for Members<'_> {
    type Error = NotARosType;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, NotARosType> {
        let Some(name) = self.names.next() else { return Ok(None) };
        let value = seed.deserialize(&mut *self.trace)?;
        let kind = self.trace.take()?;
        self.described.push((name, kind));
        Ok(Some(value))
    }
}
