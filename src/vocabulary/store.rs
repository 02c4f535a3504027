//! The last good class list, kept on disk for the next start.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::parse::ClassSpec;

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
    #[error("{}: expected a class list as this program writes it: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
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

    /// Replaces the file as a whole: a crash leaves the old list or the new one, never half of one.
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
        let text = serde_json::to_vec_pretty(&File { format: FORMAT, classes: classes.collect() })
            .map_err(|error| self.io(error.into()))?;
        let beside = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)
        };
        write().map_err(|error| self.io(error))
    }

    /// The list in the file; `None` where there is no file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(&self) -> Result<Option<Vec<ClassSpec>>, StoreError> {
        let file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|error| self.io(error))?;
        let malformed = |reason: String| StoreError::Malformed { path: self.path.clone(), reason };
        if text.len() as u64 > MAX_BYTES {
            return Err(malformed(format!("it has more than {MAX_BYTES} bytes")));
        }
        let file: File = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if file.format != FORMAT {
            return Err(malformed(format!("format {} instead of {FORMAT}", file.format)));
        }
        let class = |class: Class| ClassSpec {
            parent: class.parent,
            synonyms: class.synonyms,
            subclasses: class.subclasses,
            score: class.score,
            ..ClassSpec::new(class.label)
        };
        Ok(Some(file.classes.into_iter().map(class).collect()))
    }

    fn io(&self, source: std::io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), source }
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
}
