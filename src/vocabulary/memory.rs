//! What has been seen lately: keeps a class list from flickering.
//!
//! One refresh looks at one image; an object that is hidden in it for a moment must not lose its class, and a label that a
//! model made up once must not enter. A class enters after it was seen in `confirm` refreshes in a row and leaves after it
//! was missed in more than `keep` in a row.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::parse::ClassSpec;

/// How sightings become membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hysteresis {
    /// Refreshes in a row that have to see a class before it enters; at least 1.
    pub confirm: u32,
    /// Refreshes in a row that may miss a class before it leaves.
    pub keep: u32,
}

#[derive(Clone, Debug)]
struct Remembered {
    class: ClassSpec,
    score: f32,
    sightings: u32,
    misses: u32,
    member: bool,
    /// Rises from one class that entered to the next; the list keeps the order in which classes came.
    entered: u64,
}

/// The classes seen in recent refreshes.
#[derive(Clone, Debug)]
pub struct Memory {
    hysteresis: Hysteresis,
    known: HashMap<Arc<str>, Remembered>,
    entered: u64,
}

impl Memory {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(hysteresis: Hysteresis) -> Self {
        Self { hysteresis, known: HashMap::new(), entered: 0 }
    }

    /// Makes `classes` members as if they had just been seen: those of the list in force.
    pub fn adopt(&mut self, classes: &[ClassSpec]) {
        for class in classes {
            self.entered += 1;
            let remembered = Remembered {
                class: class.clone(),
                score: class.score,
                sightings: self.hysteresis.confirm,
                misses: 0,
                member: true,
                entered: self.entered,
            };
            self.known.entry(Arc::from(class.label.as_str())).or_insert(remembered);
        }
    }

    /// Whether a class is in the list.
    #[must_use]
    pub fn has(&self, label: &str) -> bool {
        self.known.get(label).is_some_and(|remembered| remembered.member)
    }

    /// Takes what one refresh saw (labels normalised, best first) and gives the list it makes: at most `max_classes`,
    /// in the order in which they entered. Where there are more, the longest unseen and then the lowest scores are left
    /// out.
    pub fn update(&mut self, seen: &[ClassSpec], max_classes: usize) -> Vec<ClassSpec> {
        let names: HashSet<&str> = seen.iter().map(|class| class.label.as_str()).collect();
        for (label, remembered) in &mut self.known {
            if !names.contains(&**label) {
                remembered.misses += 1;
                remembered.sightings = 0;
            }
        }
        let keep = self.hysteresis.keep;
        // What is no member has to be seen in a row; once missed, it starts anew.
        self.known.retain(|_, remembered| remembered.misses == 0 || (remembered.member && remembered.misses <= keep));
        for class in seen {
            let remembered = self.known.entry(Arc::from(class.label.as_str())).or_insert_with(|| Remembered {
                class: class.clone(),
                score: class.score,
                sightings: 0,
                misses: 0,
                member: false,
                entered: 0,
            });
            remembered.class.clone_from(class);
            remembered.score = class.score;
            remembered.misses = 0;
            remembered.sightings = remembered.sightings.saturating_add(1);
            if !remembered.member && remembered.sightings >= self.hysteresis.confirm.max(1) {
                remembered.member = true;
                self.entered += 1;
                remembered.entered = self.entered;
            }
        }
        let mut members: Vec<&Remembered> = self.known.values().filter(|remembered| remembered.member).collect();
        members.sort_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            a.misses.cmp(&b.misses).then(by_score).then_with(|| a.class.label.cmp(&b.class.label))
        });
        members.truncate(max_classes);
        members.sort_by_key(|remembered| remembered.entered);
        members
            .into_iter()
            .map(|remembered| ClassSpec { score: remembered.score, ..remembered.class.clone() })
            .collect()
    }

    /// Labels remembered, members or not. Bounded by what `keep` refreshes can bring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(memory: &mut Memory, labels: &[&str]) -> Vec<String> {
        let seen: Vec<ClassSpec> = labels.iter().map(|label| ClassSpec::new(*label)).collect();
        memory.update(&seen, 4).into_iter().map(|class| class.label).collect()
    }

    #[test]
    fn one_missed_sighting_drops_nothing() {
        let mut memory = Memory::new(Hysteresis { confirm: 1, keep: 2 });
        assert_eq!(update(&mut memory, &["mug", "ball"]), ["mug", "ball"]);
        assert_eq!(update(&mut memory, &["mug"]), ["mug", "ball"]);
        assert_eq!(update(&mut memory, &["mug"]), ["mug", "ball"]);
        assert_eq!(update(&mut memory, &["mug"]), ["mug"]);
        assert_eq!(update(&mut memory, &["ball", "mug"]), ["mug", "ball"], "who comes back comes last");
    }

    #[test]
    fn a_label_seen_once_does_not_enter_when_two_are_asked_for() {
        let mut memory = Memory::new(Hysteresis { confirm: 2, keep: 1 });
        assert!(update(&mut memory, &["ghost", "mug"]).is_empty());
        assert_eq!(update(&mut memory, &["mug"]), ["mug"]);
        assert_eq!(update(&mut memory, &["ghost", "mug"]), ["mug"], "not in a row");
        assert_eq!(update(&mut memory, &["ghost", "mug"]), ["mug", "ghost"]);
    }

    #[test]
    fn a_full_list_keeps_what_is_in_sight() {
        let mut memory = Memory::new(Hysteresis { confirm: 1, keep: 5 });
        update(&mut memory, &["a", "b", "c", "d"]);
        assert_eq!(update(&mut memory, &["d", "e", "f"]), ["a", "d", "e", "f"]);
    }

    #[test]
    fn it_does_not_grow_with_the_number_of_refreshes() {
        let mut memory = Memory::new(Hysteresis { confirm: 1, keep: 3 });
        for i in 0..10_000 {
            let label = format!("thing {i}");
            update(&mut memory, &[&label]);
            assert!(memory.len() <= 4);
        }
    }

    #[test]
    fn what_was_in_force_is_a_member() {
        let mut memory = Memory::new(Hysteresis { confirm: 3, keep: 1 });
        memory.adopt(&[ClassSpec::new("mug")]);
        assert_eq!(update(&mut memory, &[]), ["mug"]);
        assert!(update(&mut memory, &[]).is_empty());
    }
}
