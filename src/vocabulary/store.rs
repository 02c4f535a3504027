//! What the vocabulary loop keeps on disk for the next start: the last good class list, and subclasses.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::parse::{ClassSpec, VocabularyLimits, normalise_label};

/// A file larger than this was not written by us.
const MAX_BYTES: u64 = 4 << 20;
const FORMAT: u32 = 1;

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not what was written.
    #[error("{}: expected what this program writes there: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    format: u32,
    #[serde(flatten)]
    content: T,
}

/// Replaces the file as a whole: a crash leaves the old content or the new, never half of it.
fn save<T: Serialize>(path: &Path, content: T) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let text = serde_json::to_vec_pretty(&File { format: FORMAT, content }).map_err(|error| io(error.into()))?;
    let beside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(io)
}

/// What is in the file; `None` where there is no file.
fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(io)?;
    let malformed = |reason: String| StoreError::Malformed { path: path.to_owned(), reason };
    if text.len() as u64 > MAX_BYTES {
        return Err(malformed(format!("it has more than {MAX_BYTES} bytes")));
    }
    let file: File<T> = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    if file.format == FORMAT {
        Ok(Some(file.content))
    } else {
        Err(malformed(format!("format {} instead of {FORMAT}", file.format)))
    }
}

#[derive(Serialize, Deserialize)]
struct List {
    classes: Vec<Class>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    label: String,
    parent: String,
    synonyms: Vec<String>,
    subclasses: Vec<String>,
    score: f32,
}

/// A file for one class list.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// A store in the file `path`, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Replaces the list.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save(&self, classes: &[ClassSpec]) -> Result<(), StoreError> {
        let classes = classes.iter().cloned().map(|class| Class {
            label: class.label,
            parent: class.parent,
            synonyms: class.synonyms,
            subclasses: class.subclasses,
            score: class.score,
        });
        save(&self.path, List { classes: classes.collect() })
    }

    /// The list in the file; `None` where there is no file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(&self) -> Result<Option<Vec<ClassSpec>>, StoreError> {
        let class = |class: Class| ClassSpec {
            parent: class.parent,
            synonyms: class.synonyms,
            subclasses: class.subclasses,
            score: class.score,
            ..ClassSpec::new(class.label)
        };
        let list: Option<List> = load(&self.path)?;
        Ok(list.map(|list| list.classes.into_iter().map(class).collect()))
    }
}

/// How subclasses were asked for: asked otherwise they would be others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The language model's name.
    pub model: String,
    /// Which prompt.
    pub prompt: String,
    /// Subclasses per class.
    pub count: usize,
}

#[derive(Serialize, Deserialize)]
struct Answers {
    asked: Asked,
    subclasses: BTreeMap<String, Vec<String>>,
}

/// A file for the subclasses that a language model gave, by class.
#[derive(Clone, Debug)]
pub struct SubclassStore {
    path: PathBuf,
    asked: Asked,
}

impl SubclassStore {
    /// Beside the file of a class list, with `.subclasses.json` at its end.
    #[must_use]
    pub fn beside(list: &Path, asked: Asked) -> Self {
        Self { path: list.with_extension("subclasses.json"), asked }
    }

    /// Replaces what is there.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save(&self, subclasses: &BTreeMap<String, Vec<String>>) -> Result<(), StoreError> {
        save(&self.path, Answers { asked: self.asked.clone(), subclasses: subclasses.clone() })
    }

    /// What the same question got before; nothing where there is no file or it holds answers to another question. Names
    /// that a class list would refuse are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(&self, limits: &VocabularyLimits) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
        let answers: Option<Answers> = load(&self.path)?;
        let Some(Answers { subclasses, .. }) = answers.filter(|answers| answers.asked == self.asked) else {
            return Ok(BTreeMap::new());
        };
        let good = |name: &String| normalise_label(name, limits).is_ok_and(|label| *label == **name);
        let classes = subclasses.into_iter().filter(|(class, _)| good(class));
        Ok(classes
            .map(|(class, mut names)| {
                names.retain(good);
                names.truncate(self.asked.count);
                (class, names)
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_what_is_broken_is_an_error() {
        let path = std::env::temp_dir().join(format!("scenelex-store-{}.json", std::process::id()));
        let store = Store::new(&path);
        let _ = std::fs::remove_file(&path);
        assert!(store.load().unwrap().is_none());
        let mug = ClassSpec { synonyms: vec!["cup".into()], score: 0.5, ..ClassSpec::new("mug") };
        store.save(std::slice::from_ref(&mug)).unwrap();
        store.save(&[mug.clone(), ClassSpec::new("ball")]).unwrap();
        assert_eq!(store.load().unwrap().unwrap(), [mug, ClassSpec::new("ball")]);
        for broken in ["", "{\"format\": 1", "{\"format\": 2, \"classes\": []}", "[]"] {
            std::fs::write(&path, broken).unwrap();
            assert!(matches!(store.load(), Err(StoreError::Malformed { .. })), "{broken}");
        }
        std::fs::remove_file(&path).unwrap();
        let nowhere = Store::new(Path::new("/nonexistent/folder/list.json"));
        assert!(matches!(nowhere.save(&[]), Err(StoreError::Io { .. })));
    }
    #[test]
    fn subclasses_are_those_of_the_same_question() {
        let list = std::env::temp_dir().join(format!("scenelex-subclasses-{}.json", std::process::id()));
        let asked = |count| Asked { model: "m".into(), prompt: "zero_shot".into(), count };
        let (store, limits) = (SubclassStore::beside(&list, asked(2)), VocabularyLimits::default());
        let _ = std::fs::remove_file(&store.path);
        assert!(store.load(&limits).unwrap().is_empty());
        let mugs = BTreeMap::from([("mug".to_owned(), vec!["beer mug".to_owned(), "travel mug".to_owned()])]);
        store.save(&mugs).unwrap();
        assert_eq!(store.load(&limits).unwrap(), mugs);
        assert!(SubclassStore::beside(&list, asked(3)).load(&limits).unwrap().is_empty());
        // Somebody else's hand in the file.
        let bad = ["?".to_owned(), "beer mug".to_owned(), "a".to_owned(), "b".to_owned()].to_vec();
        store.save(&BTreeMap::from([("mug".to_owned(), bad), ("??".to_owned(), Vec::new())])).unwrap();
        assert_eq!(
            store.load(&limits).unwrap(),
            [("mug".to_owned(), vec!["beer mug".to_owned(), "a".to_owned()])].into()
        );
        std::fs::remove_file(&store.path).unwrap();
    }
}
