//! Whose names are whose in a class list: one list is refused as a whole where two classes claim the same.

use std::collections::{HashMap, HashSet};

use super::{
    parse::{ClassSpec, VocabularyLimits},
    refine::reply::repair_parents,
};

/// Takes every name away from all but the first class that has it; labels go before synonyms and subclasses.
pub(super) fn separate(classes: &mut [ClassSpec]) {
    let mut taken: HashSet<String> = classes.iter().map(|class| class.label.clone()).collect();
    for class in classes {
        class.synonyms.retain(|name| taken.insert(name.clone()));
        class.subclasses.retain(|name| taken.insert(name.clone()));
    }
}

/// A class of the list that is now seen under one of its other names stays what it is called: consumers know it by that.
pub(super) fn keep_labels(seen: &mut [ClassSpec], in_list: impl Fn(&str) -> bool) {
    let labels: HashSet<String> = seen.iter().map(|class| class.label.clone()).collect();
    let mut renamed = HashMap::new();
    for class in seen.iter_mut().filter(|class| !in_list(&class.label)) {
        let known = |name: &&mut String| in_list(name) && !labels.contains(&**name);
        if let Some(name) = class.synonyms.iter_mut().find(known) {
            std::mem::swap(name, &mut class.label);
            renamed.insert(name.clone(), class.label.clone());
        }
    }
    for class in seen {
        if let Some(label) = renamed.get(&class.parent) {
            class.parent.clone_from(label);
        }
    }
}

/// Classes that are always in the list come into it as such, whatever else is there and however it is called.
pub fn add_fixed(classes: &mut Vec<ClassSpec>, fixed: &[String]) {
    for name in fixed {
        for class in classes.iter_mut().filter(|class| class.label != *name) {
            class.synonyms.retain(|other| other != name);
            class.subclasses.retain(|other| other != name);
        }
        match classes.iter_mut().find(|class| class.label == *name) {
            Some(class) => class.score = 1.0,
            None => classes.push(ClassSpec::new(name)),
        }
    }
}

/// Makes a list that will be taken: one owner for every name, parents that are there and lead nowhere in circles, no class
/// with more names than are allowed.
pub(super) fn settle(classes: &mut [ClassSpec], limits: &VocabularyLimits) {
    separate(classes);
    repair_parents(classes);
    let names = limits.max_names.saturating_sub(1);
    for class in classes {
        class.synonyms.truncate(names);
        class.subclasses.truncate(names - class.synonyms.len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{types::VocabularySource, vocabulary::VocabularyBuilder};

    fn class(label: &str, parent: &str, synonyms: &[&str]) -> ClassSpec {
        let synonyms = synonyms.iter().map(|&name| name.to_owned()).collect();
        ClassSpec { parent: parent.to_owned(), synonyms, ..ClassSpec::new(label) }
    }

    #[test]
    fn a_class_keeps_its_label_and_its_children_follow() {
        let mut seen = [class("mug", "", &["cup"]), class("beer mug", "mug", &[]), class("sofa", "", &["couch"])];
        keep_labels(&mut seen, |label| ["cup", "sofa", "couch"].contains(&label));
        assert_eq!(seen, [class("cup", "", &["mug"]), class("beer mug", "cup", &[]), class("sofa", "", &["couch"])]);
    }

    #[test]
    fn fixed_classes_are_nobodys_other_names() {
        let mut classes = vec![ClassSpec { score: 0.1, ..class("dog", "", &[]) }, class("man", "", &["person", "guy"])];
        add_fixed(&mut classes, &["person".to_owned(), "dog".to_owned()]);
        assert_eq!(classes, [class("dog", "", &[]), class("man", "", &["guy"]), class("person", "", &[])]);
    }

    #[test]
    fn what_contradicts_itself_becomes_a_list_that_is_taken() {
        let limits = VocabularyLimits { max_names: 4, ..VocabularyLimits::default() };
        let many = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut classes = [
            class("cup", "mug", &["beaker"]),
            class("mug", "cup", &["cup", "beaker"]),
            ClassSpec { subclasses: many, ..class("ball", "gone", &["sphere"]) },
        ];
        let build = |classes: &[ClassSpec]| {
            VocabularyBuilder::new(limits).build(classes, VocabularySource::Refresh, SystemTime::UNIX_EPOCH)
        };
        assert!(build(&classes).is_err());
        settle(&mut classes, &limits);
        let made = build(&classes).unwrap();
        assert_eq!(made.entries.len(), 3);
        assert!(classes.iter().filter(|class| !class.parent.is_empty()).count() < 2, "no circle");
        assert_eq!(classes[2].subclasses.len(), 2);
    }
}
