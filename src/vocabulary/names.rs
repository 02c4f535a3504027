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
/// `owner` gives the label of the class in the list that has a name, as its label or as a synonym.
pub(super) fn keep_labels<'m>(seen: &mut Vec<ClassSpec>, owner: impl Fn(&str) -> Option<&'m str>) {
    let mut renamed: HashMap<String, &'m str> = HashMap::new();
    // The classes of the list that are seen.
    let mut found: HashSet<&'m str> = HashSet::new();
    for class in seen.iter() {
        if let Some(label) = owner(&class.label) {
            found.insert(label);
            if label != class.label {
                renamed.insert(class.label.clone(), label);
            }
        }
    }
    for class in seen.iter().filter(|class| owner(&class.label).is_none()) {
        let mut labels = class.synonyms.iter().filter_map(|name| owner(name).filter(|label| *label == name));
        if let Some(label) = labels.find(|&label| found.insert(label)) {
            renamed.insert(class.label.clone(), label);
        }
    }
    // Where a class is seen under its label and under another name, as if they were two, the label says more.
    let labels: HashSet<String> = seen.iter().map(|class| class.label.clone()).collect();
    let goes = |class: &ClassSpec| renamed.get(&class.label).is_some_and(|&label| labels.contains(label));
    let mut kept: Vec<ClassSpec> = Vec::with_capacity(seen.len());
    for mut class in std::mem::take(seen).into_iter().filter(|class| !goes(class)) {
        if let Some(&label) = renamed.get(&class.label) {
            class.synonyms.retain(|name| name != label);
            class.synonyms.push(std::mem::replace(&mut class.label, label.to_owned()));
        }
        if let Some(&label) = renamed.get(&class.parent) {
            label.clone_into(&mut class.parent);
        }
        if class.parent == class.label {
            class.parent.clear();
        }
        match kept.iter_mut().find(|other| other.label == class.label) {
            Some(other) => {
                other.score = other.score.max(class.score);
                other.synonyms.extend(class.synonyms);
            }
            None => kept.push(class),
        }
    }
    *seen = kept;
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
        let mut seen = vec![class("mug", "", &["cup"]), class("beer mug", "mug", &[]), class("sofa", "", &["couch"])];
        keep_labels(&mut seen, |name| ["cup", "sofa", "couch"].into_iter().find(|label| *label == name));
        assert_eq!(seen, [class("cup", "", &["mug"]), class("beer mug", "cup", &[]), class("sofa", "", &["couch"])]);
    }

    /// The list holds "sofa", also called "couch" and "settee".
    fn sofas(name: &str) -> Option<&'static str> {
        ["sofa", "couch", "settee"].contains(&name).then_some("sofa")
    }

    #[test]
    fn a_class_is_seen_under_its_synonyms_too() {
        let mut alone = vec![class("couch", "furniture", &[]), class("sofa bed", "couch", &[])];
        keep_labels(&mut alone, sofas);
        assert_eq!(alone, [class("sofa", "furniture", &["couch"]), class("sofa bed", "sofa", &[])]);
        // Under two of them it is one class all the same.
        let mut twice = vec![class("couch", "", &["divan"]), ClassSpec { score: 0.5, ..class("settee", "couch", &[]) }];
        keep_labels(&mut twice, sofas);
        assert_eq!(twice, [class("sofa", "", &["divan", "couch", "settee"])]);
        // What its label says counts for more, wherever it stands.
        let mut both = vec![class("couch", "", &["divan"]), class("sofa", "couch", &["settee"])];
        keep_labels(&mut both, sofas);
        assert_eq!(both, [class("sofa", "", &["settee"])]);
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
