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
/// The largest class id that 8-bit semantic images hold, where 255 is no class. As long as it will do, none above is
/// given out: the encoding of the images would change with it.
const LAST_SMALL_ID: u16 = 254;

/// Makes vocabularies and remembers which class id each label got, so that a label keeps its id from version to version
/// even when it is absent in between.
///
/// A new label gets the lowest id that is free. Where none up to 254 is, the label that has been absent longest is
/// forgotten for it, but none of the version before: no id changes its meaning from one version to the next. So at most
/// 254 labels are remembered beyond those of the last two versions.
#[derive(Clone, Debug)]
pub struct VocabularyBuilder {
    limits: VocabularyLimits,
    ids: HashMap<Arc<str>, Held>,
    version: u64,
}

/// The id of a label that is remembered.
#[derive(Clone, Copy, Debug)]
struct Held {
    id: u16,
    /// The last version that had the label.
    last: u64,
}

impl VocabularyBuilder {
    /// A builder that has made no vocabulary yet.
    #[must_use]
    pub fn new(limits: VocabularyLimits) -> Self {
        Self { limits, ids: HashMap::new(), version: 0 }
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
        let (before, version) = (self.version, self.version + 1);
        let mut ids = self.ids.clone();
        for entry in entries.iter_mut() {
            if let Some(held) = ids.get_mut(&entry.label) {
                held.last = version;
                entry.class_id = held.id;
            }
        }
        // Larger ids are only lent: they go as soon as nobody can take them for another label's.
        ids.retain(|_, held| held.id <= LAST_SMALL_ID || held.last >= before);

        let taken: HashSet<u16> = ids.values().map(|held| held.id).collect();
        let mut free = (FIRST_ID..UNLABELLED).filter(|id| !taken.contains(id)).peekable();
        let mut absent: Vec<(u64, u16, Arc<str>)> = ids
            .iter()
            .filter(|(_, held)| held.id <= LAST_SMALL_ID && held.last < before)
            .map(|(label, held)| (held.last, held.id, Arc::clone(label)))
            .collect();
        // The longest absent first.
        absent.sort_unstable();
        let mut absent = absent.into_iter();
        for entry in entries.iter_mut().filter(|entry| entry.class_id == UNLABELLED) {
            let id = match free.next_if(|&id| id <= LAST_SMALL_ID) {
                Some(id) => id,
                None => match absent.next() {
                    Some((_, id, label)) => {
                        ids.remove(&label);
                        id
                    }
                    None => free.next().ok_or(ListError::IdsExhausted)?,
                },
            };
            entry.class_id = id;
            ids.insert(Arc::clone(&entry.label), Held { id, last: version });
        }
        self.ids = ids;
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

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

    /// Builds from labels `c0`, `c1`, …; gives their ids.
    fn ids_of(builder: &mut VocabularyBuilder, labels: impl IntoIterator<Item = u32>) -> BTreeMap<u32, u16> {
        let numbers: Vec<u32> = labels.into_iter().collect();
        let classes: Vec<ClassSpec> = numbers.iter().map(|number| ClassSpec::new(format!("c{number}"))).collect();
        let made = builder.build(&classes, VocabularySource::Refresh, SystemTime::UNIX_EPOCH).unwrap();
        numbers.into_iter().zip(made.entries.iter().map(|entry| entry.class_id)).collect()
    }

    #[test]
    fn the_longest_absent_label_is_forgotten_first() {
        let mut builder = VocabularyBuilder::new(VocabularyLimits::default());
        ids_of(&mut builder, 0..100);
        ids_of(&mut builder, 100..254);
        ids_of(&mut builder, 0..50);
        // All 254 are given out. 50..100 have been absent longest, then 100..254; 0..50 are those of the version
        // before.
        let fresh = ids_of(&mut builder, 300..360);
        let expected: Vec<u16> = (51..=100).chain(101..=110).collect();
        assert_eq!(fresh.into_values().collect::<Vec<_>>(), expected);
        let back = ids_of(&mut builder, [0, 49, 110, 253]);
        assert_eq!(back.into_values().collect::<Vec<_>>(), [1, 50, 111, 254], "those are remembered");
    }

    #[test]
    fn ids_are_small_again_after_a_long_list() {
        let limits = VocabularyLimits { max_classes: 1000, ..VocabularyLimits::default() };
        let mut builder = VocabularyBuilder::new(limits);
        let long = ids_of(&mut builder, 0..300);
        assert!(long.into_values().eq(1..=300));
        // None of the long list's ids may mean something else at once.
        assert!(ids_of(&mut builder, 300..310).into_values().eq(301..=310));
        let next = ids_of(&mut builder, 305..320);
        assert!(next.range(305..310).map(|(_, &id)| id).eq(306..=310), "and those that stay keep theirs");
        assert!(next.range(310..).map(|(_, &id)| id).eq(1..=10));
        let last = ids_of(&mut builder, [250, 280, 310, 311]);
        assert_eq!(last.into_values().collect::<Vec<_>>(), [251, 11, 1, 2], "281 was only lent to 280");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn ids_stay_small_and_never_mean_two_labels_at_once(
            lists in prop::collection::vec(prop::collection::btree_set(0u32..500, 1..127), 1..40),
        ) {
            let mut builder = VocabularyBuilder::new(VocabularyLimits::default());
            let mut history: Vec<BTreeMap<u32, u16>> = Vec::new();
            for list in lists {
                let now = ids_of(&mut builder, list);
                let distinct: HashSet<u16> = now.values().copied().collect();
                prop_assert_eq!(distinct.len(), now.len());
                prop_assert!(now.values().all(|id| (FIRST_ID..=LAST_SMALL_ID).contains(id)), "{now:?}");
                prop_assert!(builder.ids.len() <= usize::from(LAST_SMALL_ID));
                if let Some(before) = history.last() {
                    for (label, id) in before {
                        prop_assert!(now.iter().all(|(other, its)| (other == label) == (its == id)));
                    }
                }
                // As long as there were no more than 254 labels since it was seen last, a label keeps its id.
                for (label, id) in &now {
                    let Some(seen) = history.iter().rposition(|list| list.contains_key(label)) else { continue };
                    let since: HashSet<u32> = history[seen..].iter().flat_map(BTreeMap::keys).copied().collect();
                    let all = since.len() + now.keys().filter(|other| !since.contains(other)).count();
                    if all <= usize::from(LAST_SMALL_ID) {
                        prop_assert_eq!(history[seen].get(label), Some(id));
                    }
                }
                history.push(now);
            }
        }
    }
}
