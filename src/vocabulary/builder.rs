//! From class lists to versioned vocabularies.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use super::parse::{ClassSpec, ListError, VocabularyLimits, normalise_label};
use crate::types::{ClassEntry, UNLABELLED, Vocabulary, VocabularySource};

/// The lowest class id given out; 0 is left to "no object" in 8-bit semantic images.
const FIRST_ID: u16 = 1;

/// Makes vocabularies and remembers which class id each label got, so that a label keeps its id from version to version
/// even when it is absent in between.
#[derive(Clone, Debug)]
pub struct VocabularyBuilder {
    limits: VocabularyLimits,
    ids: HashMap<Arc<str>, u16>,
    /// The lowest id never given out.
    next: u16,
    version: u64,
}

impl VocabularyBuilder {
    /// A builder that has made no vocabulary yet.
    #[must_use]
    pub fn new(limits: VocabularyLimits) -> Self {
        Self { limits, ids: HashMap::new(), next: FIRST_ID, version: 0 }
    }

    /// Bounds in use.
    #[must_use]
    pub fn limits(&self) -> &VocabularyLimits {
        &self.limits
    }

    /// Makes the next version from a class list. Classes with the same label are joined, names repeated within a class
    /// dropped; a name that stands for two classes is an error. Nothing changes when an error is returned.
    ///
    /// # Errors
    /// [`ListError`] when a bound is exceeded or the list is empty or ambiguous.
    pub fn build(
        &mut self,
        classes: &[ClassSpec],
        source: VocabularySource,
        created: SystemTime,
    ) -> Result<Vocabulary, ListError> {
        if classes.len() > self.limits.max_classes {
            return Err(ListError::TooManyClasses { found: classes.len(), limit: self.limits.max_classes });
        }
        let mut entries: Vec<ClassEntry> = Vec::with_capacity(classes.len());
        for class in classes {
            self.add(&mut entries, class)?;
        }
        if entries.is_empty() {
            return Err(ListError::Empty);
        }
        check_names(&entries)?;
        self.assign_ids(&mut entries)?;
        self.version += 1;
        Ok(Vocabulary { version: self.version, source, created, entries })
    }

    fn add(&self, entries: &mut Vec<ClassEntry>, class: &ClassSpec) -> Result<(), ListError> {
        let label = normalise_label(&class.label, &self.limits)?;
        let parent =
            if class.parent.trim().is_empty() { Arc::from("") } else { normalise_label(&class.parent, &self.limits)? };
        let known = entries.iter().position(|e| e.label == label).unwrap_or_else(|| {
            entries.push(ClassEntry {
                class_id: UNLABELLED,
                label,
                parent: Arc::from(""),
                synonyms: Vec::new(),
                subclasses: Vec::new(),
                score: class.score.clamp(0.0, 1.0),
            });
            entries.len() - 1
        });
        let Some(entry) = entries.get_mut(known) else { return Ok(()) };
        if entry.parent.is_empty() {
            entry.parent = parent;
        }
        let found = 1 + entry.synonyms.len() + entry.subclasses.len() + class.synonyms.len() + class.subclasses.len();
        if found > self.limits.max_names {
            let label = entry.label.to_string();
            return Err(ListError::TooManyNames { label, found, limit: self.limits.max_names });
        }
        for (names, subclass) in [(&class.synonyms, false), (&class.subclasses, true)] {
            for name in names {
                let name = normalise_label(name, &self.limits)?;
                let known = name == entry.label || entry.synonyms.contains(&name) || entry.subclasses.contains(&name);
                if !known {
                    if subclass {
                        entry.subclasses.push(name);
                    } else {
                        entry.synonyms.push(name);
                    };
                }
            }
        }
        Ok(())
    }

    fn assign_ids(&mut self, entries: &mut [ClassEntry]) -> Result<(), ListError> {
        let (mut ids, mut next) = (self.ids.clone(), self.next);
        for entry in entries.iter_mut() {
            if let Some(&id) = ids.get(&entry.label) {
                entry.class_id = id;
            }
        }
        let fresh = entries.iter().filter(|e| e.class_id == UNLABELLED).count();
        let mut retired: Vec<Arc<str>> = Vec::new();
        if usize::from(UNLABELLED - next) < fresh {
            // After 65534 different labels: ids of labels that are not in use now are given out again.
            let used: HashSet<&str> = entries.iter().map(|e| &*e.label).collect();
            retired.extend(ids.keys().filter(|label| !used.contains(&***label)).cloned());
        }
        for entry in entries.iter_mut().filter(|e| e.class_id == UNLABELLED) {
            entry.class_id = if next < UNLABELLED {
                next += 1;
                next - 1
            } else {
                retired.pop().and_then(|label| ids.remove(&label)).ok_or(ListError::IdsExhausted)?
            };
            ids.insert(Arc::clone(&entry.label), entry.class_id);
        }
        (self.ids, self.next) = (ids, next);
        Ok(())
    }
}

/// Every name the detector is prompted with must stand for one class.
fn check_names(entries: &[ClassEntry]) -> Result<(), ListError> {
    let mut owner: HashMap<&str, &str> = HashMap::new();
    for entry in entries {
        for name in std::iter::once(&entry.label).chain(&entry.synonyms).chain(&entry.subclasses) {
            if let Some(first) = owner.insert(name, &entry.label) {
                return Err(ListError::Ambiguous {
                    phrase: name.to_string(),
                    first: first.to_owned(),
                    second: entry.label.to_string(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(builder: &mut VocabularyBuilder, labels: &[&str]) -> Vec<(String, u16)> {
        let classes: Vec<ClassSpec> = labels.iter().map(|l| ClassSpec::new(*l)).collect();
        let vocabulary = builder.build(&classes, VocabularySource::Topic, SystemTime::UNIX_EPOCH).unwrap();
        vocabulary.entries.iter().map(|e| (e.label.to_string(), e.class_id)).collect()
    }

    #[test]
    fn ids_stay_with_their_labels() {
        let mut builder = VocabularyBuilder::new(VocabularyLimits::default());
        let first = build(&mut builder, &["mug", "ball"]);
        assert_eq!(first, [("mug".into(), 1), ("ball".into(), 2)]);
        assert_eq!(build(&mut builder, &["cone", "ball"]), [("cone".into(), 3), ("ball".into(), 2)]);
        assert_eq!(build(&mut builder, &["Mug "]), [("mug".into(), 1)]);
    }

    #[test]
    fn versions_rise_only_with_accepted_lists() {
        let mut builder = VocabularyBuilder::new(VocabularyLimits::default());
        let build = |builder: &mut VocabularyBuilder, label: &str| {
            builder.build(&[ClassSpec::new(label)], VocabularySource::Service, SystemTime::UNIX_EPOCH)
        };
        assert_eq!(build(&mut builder, "mug").unwrap().version, 1);
        assert_eq!(build(&mut builder, "??"), Err(ListError::Character { label: "??".into(), character: '?' }));
        assert_eq!(builder.build(&[], VocabularySource::Topic, SystemTime::UNIX_EPOCH), Err(ListError::Empty));
        assert_eq!(build(&mut builder, "ball").unwrap().version, 2);
    }

    #[test]
    fn a_name_stands_for_one_class() {
        let mut builder = VocabularyBuilder::new(VocabularyLimits::default());
        let chair =
            ClassSpec { synonyms: vec!["Seat".into(), "seat".into(), "chair".into()], ..ClassSpec::new("chair") };
        let stool = ClassSpec { subclasses: vec!["seat".into()], ..ClassSpec::new("stool") };
        let both = builder.build(&[chair.clone(), stool], VocabularySource::Topic, SystemTime::UNIX_EPOCH);
        assert!(matches!(both, Err(ListError::Ambiguous { phrase, .. }) if phrase == "seat"));
        let one = builder.build(&[chair], VocabularySource::Topic, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(one.entries[0].synonyms, [Arc::from("seat")]);
        assert_eq!(one.version, 1, "the refused list took no version");
    }

    #[test]
    fn retired_ids_are_reused_only_when_none_is_left() {
        let mut builder = VocabularyBuilder::new(VocabularyLimits::default());
        let mut ids_of = |round: u32| {
            let classes: Vec<ClassSpec> = (0..250).map(|i| ClassSpec::new(format!("c{}", round * 250 + i))).collect();
            let made = builder.build(&classes, VocabularySource::Topic, SystemTime::UNIX_EPOCH).unwrap();
            made.entries.iter().map(|e| e.class_id).collect::<Vec<_>>()
        };
        let mut seen = HashSet::new();
        for round in 0..262 {
            assert!(ids_of(round).into_iter().all(|id| seen.insert(id)), "round {round} has an id of another label");
        }
        // 65500 of the 65534 ids are taken; the next round needs some again, but none twice.
        let last: HashSet<u16> = ids_of(262).into_iter().collect();
        assert_eq!(last.len(), 250);
        assert_eq!(last.difference(&seen).count(), 34);
        assert!(!last.contains(&UNLABELLED) && !last.contains(&0));
    }
}
