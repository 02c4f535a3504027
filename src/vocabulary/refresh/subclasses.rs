//! The narrower words of the classes that are seen.

use tokio_util::sync::CancellationToken;

use super::{CLASSES_AT_ONCE, RefreshError, Refresher, Trouble};
use crate::vocabulary::{
    chat::ChatError,
    parse::ClassSpec,
    refine::{prompts, reply},
    store::SubclassStore,
};

/// Classes whose subclasses are remembered; beyond it all are forgotten.
const REMEMBERED_SUBCLASSES: usize = 4096;
/// Times that a class is asked about whose subclasses the language model leaves out; then it is asked about again only
/// together with a class that is new.
const UNANSWERED: u32 = 3;

impl Refresher {
    /// Keeps the language model's subclasses in `store`, and begins with those that are there.
    #[must_use]
    pub fn with_subclasses(mut self, store: SubclassStore) -> Self {
        match store.load(&self.config.limits) {
            Ok(mut kept) => {
                // A class without any was never answered.
                kept.retain(|_, subclasses| !subclasses.is_empty());
                self.subclasses = kept;
            }
            Err(error) => tracing::warn!(%error, "the kept subclasses cannot be used"),
        }
        self.subclass_store = Some(store);
        self
    }

    /// Adds subclasses: from the cache, from the language model for all others, else those they had or the lexicon's.
    pub(super) async fn add_subclasses(
        &mut self,
        seen: &mut [ClassSpec],
        cancel: &CancellationToken,
        trouble: &mut Trouble,
    ) -> Result<(), RefreshError> {
        let count = self.config.subclasses;
        if count == 0 {
            return Ok(());
        }
        let known = |label: &&str| !self.subclasses.contains_key(*label);
        let unknown: Vec<&str> = seen.iter().map(|class| class.label.as_str()).filter(known).collect();
        if self.subclasses.len() + unknown.len() > REMEMBERED_SUBCLASSES {
            self.subclasses.clear();
        }
        let asked_enough = |label: &&str| self.unanswered.get(*label).is_some_and(|&times| times >= UNANSWERED);
        if self.chat.is_some() && !unknown.iter().all(asked_enough) {
            let found = self.ask_subclasses(&unknown, cancel, trouble).await?;
            let news = !found.is_empty();
            self.subclasses.extend(found);
            if let Some(store) = self.subclass_store.as_ref().filter(|_| news)
                && let Err(error) = store.save(&self.subclasses)
            {
                tracing::warn!(%error, "subclasses could not be kept on disk");
            }
        }
        for class in seen {
            if let Some(subclasses) = self.subclasses.get(&class.label) {
                class.subclasses.clone_from(subclasses);
            } else if let Some(kept) = self.memory.subclasses(&class.label).filter(|_| self.chat.is_some()) {
                class.subclasses = kept.to_vec();
            } else if let Some(lexicon) = &self.lexicon {
                class.subclasses = lexicon.subclasses(&class.label, count);
                // In place of a language model that failed it is used now but not remembered.
                if self.chat.is_none() {
                    self.subclasses.insert(class.label.clone(), class.subclasses.clone());
                }
            }
        }
        Ok(())
    }

    /// Subclasses of those `classes` for which the language model gave an answer.
    async fn ask_subclasses(
        &mut self,
        classes: &[&str],
        cancel: &CancellationToken,
        trouble: &mut Trouble,
    ) -> Result<Vec<(String, Vec<String>)>, RefreshError> {
        let (count, mut found) = (self.config.subclasses, Vec::new());
        for some in classes.chunks(CLASSES_AT_ONCE) {
            let asked = self.ask(&prompts::subclasses(some, count, self.config.subclass_prompt), cancel).await;
            match asked.and_then(|answer| Ok(reply::subclasses(&answer, some, count, &self.config.limits)?)) {
                Ok(read) => {
                    trouble.refused += read.refused;
                    for (&label, subclasses) in some.iter().zip(read.value) {
                        if subclasses.is_empty() {
                            self.left_out(label);
                        } else {
                            found.push((label.to_owned(), subclasses));
                        }
                    }
                }
                Err(RefreshError::Stopped) => return Err(RefreshError::Stopped),
                // It may answer so again and again, and yet answer about other classes.
                Err(error) if is_answer(&error) => {
                    trouble.note(&error);
                    for label in some {
                        self.left_out(label);
                    }
                }
                Err(error) => {
                    trouble.note(&error);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Notes that the language model gave no subclasses of a class.
    fn left_out(&mut self, label: &str) {
        if self.unanswered.len() >= REMEMBERED_SUBCLASSES {
            self.unanswered.clear();
        }
        let times = self.unanswered.entry(label.to_owned()).or_default();
        *times = times.saturating_add(1);
    }
}

/// Whether the language model has answered, if only to no use.
const fn is_answer(error: &RefreshError) -> bool {
    matches!(error, RefreshError::Reply(_) | RefreshError::Chat(ChatError::Length { .. } | ChatError::Refused { .. }))
}
