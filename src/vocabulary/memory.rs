//! What has been seen lately: keeps a class list from flickering.
//!
//! One refresh looks at one image; an object that is hidden in it for a moment must not lose its class, and a label that a
//! model made up once must not enter. A class enters after it was seen in `confirm` refreshes in a row and leaves after it
//! was missed in more than `keep` in a row. Its synonyms and its parent age likewise: they come with the sighting that names
//! them and go after more than `keep` sightings in a row that do not. What was there keeps its place, so a list that only
//! ranks differently is the same list.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::parse::{ClassSpec, VocabularyLimits};

/// How sightings become membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hysteresis {
    /// Refreshes in a row that have to see a class before it enters; at least 1.
    pub confirm: u32,
    /// Refreshes in a row that may miss a class before it leaves.
    pub keep: u32,
}

/// What sightings say of a class.
#[derive(Clone, Debug)]
struct Said {
    name: String,
    /// Sightings in a row that did not say it.
    unsaid: u32,
}

impl Said {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), unsaid: 0 }
    }
}

#[derive(Clone, Debug)]
struct Remembered {
    label: String,
    parent: Said,
    synonyms: Vec<Said>,
    subclasses: Vec<String>,
    score: f32,
    sightings: u32,
    misses: u32,
    member: bool,
    /// In the list that was made last; a member that is not had no place there.
    in_force: bool,
    /// Rises from one class that entered to the next; the list keeps the order in which classes came.
    entered: u64,
}

impl Remembered {
    /// A class before its first sighting.
    fn new(class: &ClassSpec) -> Self {
        Self {
            label: class.label.clone(),
            parent: Said::new(&class.parent),
            synonyms: class.synonyms.iter().map(|name| Said::new(name)).collect(),
            subclasses: class.subclasses.clone(),
            score: class.score,
            sightings: 0,
            misses: 0,
            member: false,
            in_force: false,
            entered: 0,
        }
    }

    /// Takes what a sighting says of the class; what it leaves out counts as unsaid where the look was `complete`.
    /// Subclasses do not come from sightings: they are what they are now.
    fn take(&mut self, class: &ClassSpec, keep: u32, max_names: usize, complete: bool) {
        let more = u32::from(complete);
        self.score = class.score;
        self.subclasses.clone_from(&class.subclasses);
        if self.parent.name == class.parent {
            self.parent.unsaid = 0;
        } else {
            self.parent.unsaid = self.parent.unsaid.saturating_add(more);
            if self.parent.name.is_empty() || self.parent.unsaid > keep {
                self.parent = Said::new(&class.parent);
            }
        }
        for synonym in &mut self.synonyms {
            let said = class.synonyms.contains(&synonym.name);
            synonym.unsaid = if said { 0 } else { synonym.unsaid.saturating_add(more) };
        }
        self.synonyms.retain(|synonym| synonym.unsaid <= keep);
        for name in &class.synonyms {
            if !self.synonyms.iter().any(|synonym| synonym.name == *name) {
                self.synonyms.push(Said::new(name));
            }
        }
        // The label is a name too. The longest unsaid goes first, of several the newest.
        while self.synonyms.len() > max_names.saturating_sub(1) {
            let longest = self.synonyms.iter().enumerate().max_by_key(|(_, synonym)| synonym.unsaid);
            let Some((at, _)) = longest else { break };
            self.synonyms.remove(at);
        }
    }

    /// Members with lower ranks go first where the list has no place for all. A class that comes new does not take the place
    /// of one that is seen as well, whatever their scores: those differ from look to look.
    const fn rank(&self) -> (u32, bool) {
        (self.misses, !self.in_force)
    }

    fn spec(&self) -> ClassSpec {
        ClassSpec {
            parent: self.parent.name.clone(),
            synonyms: self.synonyms.iter().map(|synonym| synonym.name.clone()).collect(),
            subclasses: self.subclasses.clone(),
            score: self.score,
            ..ClassSpec::new(&self.label)
        }
    }
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
            let member = Remembered {
                sightings: self.hysteresis.confirm,
                member: true,
                in_force: true,
                entered: self.entered,
                ..Remembered::new(class)
            };
            self.known.entry(Arc::from(class.label.as_str())).or_insert(member);
        }
    }

    /// The label of the member that has a name: as its label, else as a synonym, of several the one that came first.
    #[must_use]
    pub fn owner(&self, name: &str) -> Option<&str> {
        if let Some(remembered) = self.known.get(name).filter(|remembered| remembered.member) {
            return Some(&remembered.label);
        }
        let named = |remembered: &&Remembered| remembered.synonyms.iter().any(|synonym| synonym.name == name);
        let first = self.known.values().filter(|remembered| remembered.member).filter(named).min_by_key(|r| r.entered);
        first.map(|remembered| remembered.label.as_str())
    }

    /// Labels of the members, in no order.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.known.values().filter(|remembered| remembered.member).map(|remembered| remembered.label.as_str())
    }

    /// The subclasses that a class had when it was seen last; `None` where it had none.
    #[must_use]
    pub fn subclasses(&self, label: &str) -> Option<&[String]> {
        let subclasses = self.known.get(label).map(|remembered| remembered.subclasses.as_slice());
        subclasses.filter(|subclasses| !subclasses.is_empty())
    }

    /// Takes what one refresh saw (labels normalised, best first) and gives the list it makes: at most
    /// [`VocabularyLimits::max_classes`], in the order in which they entered. Where there are more, the longest unseen are
    /// left out, then those that were not in the list before, then the lowest scores.
    ///
    /// `complete` says whether all looked that usually do: otherwise what was not seen counts as neither seen nor missed.
    ///
    /// Gives nothing where all were missed for too long. No empty list comes into force, so the members are remembered
    /// until another class enters.
    pub fn update(&mut self, seen: &[ClassSpec], limits: &VocabularyLimits, complete: bool) -> Vec<ClassSpec> {
        if complete {
            self.miss_all_but(seen);
        }
        let Hysteresis { confirm, keep } = self.hysteresis;
        for class in seen {
            let label: Arc<str> = Arc::from(class.label.as_str());
            let remembered = self.known.entry(label).or_insert_with(|| Remembered::new(class));
            remembered.take(class, keep, limits.max_names, complete);
            remembered.misses = 0;
            remembered.sightings = remembered.sightings.saturating_add(1);
            if !remembered.member && remembered.sightings >= confirm.max(1) {
                remembered.member = true;
                self.entered += 1;
                remembered.entered = self.entered;
            }
        }
        if !self.known.values().any(|remembered| remembered.member && remembered.misses <= keep) {
            self.known.retain(|_, remembered| remembered.in_force || !remembered.member);
            return Vec::new();
        }
        self.known.retain(|_, remembered| remembered.misses <= keep);
        let mut members: Vec<&mut Remembered> =
            self.known.values_mut().filter(|remembered| remembered.member).collect();
        members.sort_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            a.rank().cmp(&b.rank()).then(by_score).then_with(|| a.label.cmp(&b.label))
        });
        for (place, remembered) in members.iter_mut().enumerate() {
            remembered.in_force = place < limits.max_classes;
        }
        members.truncate(limits.max_classes);
        members.sort_by_key(|remembered| remembered.entered);
        members.into_iter().map(|remembered| remembered.spec()).collect()
    }

    fn miss_all_but(&mut self, seen: &[ClassSpec]) {
        let labels: HashSet<&str> = seen.iter().map(|class| class.label.as_str()).collect();
        for (label, remembered) in &mut self.known {
            if !labels.contains(&**label) {
                remembered.misses = remembered.misses.saturating_add(1);
                remembered.sightings = 0;
            }
        }
        // What is no member has to be seen in a row; once missed, it starts anew.
        self.known.retain(|_, remembered| remembered.member || remembered.misses == 0);
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

    fn limits() -> VocabularyLimits {
        VocabularyLimits { max_classes: 4, max_names: 4, ..VocabularyLimits::default() }
    }

    fn update(memory: &mut Memory, labels: &[&str]) -> Vec<String> {
        let seen: Vec<ClassSpec> = labels.iter().map(|label| ClassSpec::new(*label)).collect();
        memory.update(&seen, &limits(), true).into_iter().map(|class| class.label).collect()
    }

    fn class(label: &str, parent: &str, synonyms: &[&str]) -> ClassSpec {
        let synonyms = synonyms.iter().map(|&name| name.to_owned()).collect();
        ClassSpec { parent: parent.to_owned(), synonyms, ..ClassSpec::new(label) }
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

    #[test]
    fn names_come_at_once_and_stay_as_long_as_a_class_does() {
        let mut memory = Memory::new(Hysteresis { confirm: 1, keep: 1 });
        let mut sees = |parent: &str, synonyms: &[&str]| {
            let list = memory.update(&[class("sofa", parent, synonyms)], &limits(), true);
            (list[0].parent.clone(), list[0].synonyms.join(" "))
        };
        let said = |parent: &str, synonyms: &str| (parent.to_owned(), synonyms.to_owned());
        assert_eq!(sees("seat", &["couch", "settee"]), said("seat", "couch settee"));
        assert_eq!(sees("seat", &["settee", "couch"]), said("seat", "couch settee"), "another rank is no news");
        assert_eq!(sees("", &["couch"]), said("seat", "couch settee"), "left out once");
        assert_eq!(sees("seat", &["couch", "settee"]), said("seat", "couch settee"));
        assert_eq!(sees("furniture", &["couch", "divan"]), said("seat", "couch settee divan"));
        assert_eq!(sees("furniture", &["couch", "divan"]), said("furniture", "couch divan"), "left out twice");
        assert_eq!(sees("furniture", &["a", "b", "c"]), said("furniture", "a b c"), "no more names than are allowed");
    }

    #[test]
    fn a_name_belongs_to_the_label_first_and_then_to_the_oldest_synonym() {
        let mut memory = Memory::new(Hysteresis { confirm: 2, keep: 1 });
        memory.adopt(&[class("sofa", "", &["couch", "bed"]), class("divan", "", &["couch"]), ClassSpec::new("bed")]);
        memory.update(&[ClassSpec::new("ghost")], &limits(), true);
        let owners = ["sofa", "couch", "bed", "ghost", "lamp"].map(|name| memory.owner(name));
        assert_eq!(owners, [Some("sofa"), Some("sofa"), Some("bed"), None, None]);
    }

    #[test]
    fn scores_alone_change_nobodys_place_in_a_full_list() {
        let mut memory = Memory::new(Hysteresis { confirm: 1, keep: 5 });
        let mut sees = |scores: &[(&str, f32)]| -> Vec<String> {
            let class = |&(label, score): &(&str, f32)| ClassSpec { score, ..ClassSpec::new(label) };
            let seen: Vec<ClassSpec> = scores.iter().map(class).collect();
            memory.update(&seen, &limits(), true).into_iter().map(|class| class.label).collect()
        };
        assert_eq!(sees(&[("a", 0.9), ("b", 0.5), ("c", 0.5), ("d", 0.5), ("e", 0.4)]), ["a", "b", "c", "d"]);
        assert_eq!(sees(&[("e", 0.6), ("a", 0.5), ("b", 0.5), ("c", 0.5), ("d", 0.4)]), ["a", "b", "c", "d"]);
        assert_eq!(sees(&[("e", 0.4), ("a", 0.5), ("b", 0.5), ("d", 0.5)]), ["a", "b", "d", "e"], "the place is free");
        assert_eq!(sees(&[("e", 0.1), ("a", 0.5), ("b", 0.5), ("c", 0.9), ("d", 0.5)]), ["a", "b", "d", "e"]);
    }

    #[test]
    fn what_not_all_looked_for_is_not_missed() {
        let mut memory = Memory::new(Hysteresis { confirm: 2, keep: 0 });
        memory.adopt(&[ClassSpec::new("lamp"), ClassSpec::new("mug")]);
        let mut sees = |labels: &[&str], complete: bool| -> Vec<String> {
            let seen: Vec<ClassSpec> = labels.iter().map(|label| ClassSpec::new(*label)).collect();
            memory.update(&seen, &limits(), complete).into_iter().map(|class| class.label).collect()
        };
        assert_eq!(sees(&["mug", "ball"], false), ["lamp", "mug"]);
        assert_eq!(sees(&["mug"], false), ["lamp", "mug"], "and the ball is still to be confirmed");
        assert_eq!(sees(&["mug", "ball"], true), ["mug", "ball"]);
    }

    #[test]
    fn a_list_that_nobody_replaces_is_remembered() {
        let mut memory = Memory::new(Hysteresis { confirm: 2, keep: 0 });
        memory.adopt(&[ClassSpec::new("mug"), ClassSpec::new("ball")]);
        assert!(update(&mut memory, &["ghost"]).is_empty());
        assert_eq!(update(&mut memory, &["mug"]), ["mug"], "a member needs no confirmation");
        assert!(update(&mut memory, &["cone"]).is_empty());
        assert_eq!(update(&mut memory, &["cone"]), ["cone"]);
        assert_eq!(memory.len(), 1);
    }
}
