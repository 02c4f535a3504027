//! Post-refinement: which class of the vocabulary a detector's phrase stands for.
//!
//! A detector that names things by its own tokens ([`super::LabelRule::TokenLabels`]) may say "table" where the list says
//! "dining table" (LLM refinement, section 3.3.2). The frame loop only looks phrases up; one that is not in the table yet goes
//! to whoever fills it, without waiting, and its detection stays unlabelled until the answer is there.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, bounded};

/// Phrases that may wait for an answer; those beyond come again with the next frame.
const WAITING: usize = 64;
/// Phrases remembered for one vocabulary; what a detector says is no finite list.
const REMEMBERED: usize = 4096;

/// A phrase that the table does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPhrase {
    /// As the detector spells it.
    pub phrase: Arc<str>,
    /// Version of the vocabulary in use.
    pub version: u64,
}

/// Answers for one vocabulary: the class's label, or `None` for a phrase that stands for no class.
#[derive(Debug, Default)]
struct Answers {
    version: u64,
    classes: HashMap<Arc<str>, Option<Arc<str>>>,
}

/// The table. Cheap to clone; every clone is the same table.
#[derive(Clone, Debug)]
pub struct PhraseTable {
    answers: Arc<ArcSwap<Answers>>,
    unknown: Sender<UnknownPhrase>,
}

impl PhraseTable {
    /// An empty table, and where its unknown phrases come out.
    #[must_use]
    pub fn new() -> (Self, Receiver<UnknownPhrase>) {
        let (unknown, receiver) = bounded(WAITING);
        (Self { answers: Arc::default(), unknown }, receiver)
    }

    /// The label that `phrase` stands for under vocabulary `version`. Never waits.
    #[must_use]
    pub fn class_of(&self, phrase: &Arc<str>, version: u64) -> Option<Arc<str>> {
        let answers = self.answers.load();
        if answers.version == version
            && let Some(class) = answers.classes.get(phrase)
        {
            return class.clone();
        }
        // Full or closed: it comes again, or nobody answers any more.
        let _ = self.unknown.try_send(UnknownPhrase { phrase: Arc::clone(phrase), version });
        None
    }

    /// Whether the table has an answer.
    #[must_use]
    pub fn knows(&self, phrase: &str, version: u64) -> bool {
        let answers = self.answers.load();
        answers.version == version && answers.classes.contains_key(phrase)
    }

    /// Adds or replaces answers for vocabulary `version`; those for other versions are forgotten. For one thread only.
    pub fn answer(&self, version: u64, answers: impl IntoIterator<Item = (Arc<str>, Option<Arc<str>>)>) {
        let current = self.answers.load();
        let mut classes = if current.version == version { current.classes.clone() } else { HashMap::new() };
        if classes.len() >= REMEMBERED {
            classes.clear();
        }
        classes.extend(answers);
        self.answers.store(Arc::new(Answers { version, classes }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_phrases_come_out_and_answers_hold_for_one_vocabulary() {
        let (table, unknown) = PhraseTable::new();
        let (desk, mug): (Arc<str>, Arc<str>) = (Arc::from("desk"), Arc::from("mug"));
        assert_eq!(table.class_of(&desk, 3), None);
        assert_eq!(unknown.try_recv(), Ok(UnknownPhrase { phrase: Arc::clone(&desk), version: 3 }));
        table.answer(3, [(Arc::clone(&desk), Some(Arc::from("table"))), (Arc::clone(&mug), None)]);
        assert_eq!(table.class_of(&desk, 3).as_deref(), Some("table"));
        assert_eq!(table.class_of(&mug, 3), None);
        assert!(unknown.try_recv().is_err(), "a phrase without a class is answered too");
        assert_eq!(table.class_of(&desk, 4), None);
        assert_eq!(unknown.try_recv().unwrap().version, 4);
        for _ in 0..1000 {
            let _ = table.class_of(&Arc::from("sofa"), 3);
        }
        assert_eq!(unknown.len(), WAITING, "nothing waits without a bound");
    }
}
