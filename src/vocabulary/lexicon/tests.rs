//! Tests on the word net of [`super::fixture`].

use proptest::prelude::*;

use super::{
    fixture::{COUNTS, DATA, EXCEPTIONS, INDEX, parse, tiny},
    read::Sources,
    *,
};

fn base(lexicon: &Lexicon, phrase: &str) -> Option<(String, String)> {
    lexicon.base_form(phrase).map(|form| (form.noun, form.cut.join(" ")))
}

#[test]
fn base_forms() {
    let lexicon = tiny();
    let cases = [
        ("Mug", "mug", ""),
        ("  COFFEE_mugs. ", "coffee mug", ""),
        ("dinner table", "dinner-table", ""),
        ("Dining-Tables", "dining table", ""),
        ("mice", "mouse", ""),
        ("computer mice", "computer mouse", ""),
        ("men", "man", ""),
        ("people", "person", ""),
        ("glasses", "glasses", ""),
        ("keyboards", "keyboard", ""),
        ("a chair", "chair", ""),
        ("red coffee mug", "coffee mug", "red"),
        ("old wooden chairs", "chair", "old wooden"),
        ("table with a mug", "table", "with a mug"),
        ("pair of glasses", "glasses", ""),
        ("mug of glass", "mug", "of glass"),
        ("armchair furniture", "armchair", ""),
        ("table furniture", "table", ""),
        ("chair table", "table", "chair"),
        ("slang", "slang", ""),
    ];
    for (phrase, noun, cut) in cases {
        assert_eq!(base(&lexicon, phrase), Some((noun.to_owned(), cut.to_owned())), "{phrase:?}");
    }
    for unknown in ["", " _ ", "?", "qwxyz", "unknowns", "red", "chairx", "mug qwxyz", &"mug ".repeat(9000)] {
        assert_eq!(base(&lexicon, unknown), None, "{unknown:?}");
    }
}

#[test]
fn relations() {
    let lexicon = tiny();
    let cases = [
        ("stool", "tabourets", Relation::Same),
        ("Dinner table", "dining table", Relation::Same),
        ("red mug", "red mugs", Relation::Same),
        ("armchair", "chair", Relation::Narrower { distance: 1 }),
        ("red mug", "mug", Relation::Narrower { distance: 1 }),
        ("red mug", "container", Relation::Narrower { distance: 2 }),
        ("furniture", "chair", Relation::Broader { distance: 2 }),
        ("mug", "red mug", Relation::Broader { distance: 1 }),
        ("stool", "chair", Relation::Sibling { distance: 2 }),
        ("red mug", "blue mug", Relation::Sibling { distance: 2 }),
        ("mouse", "rat", Relation::Sibling { distance: 2 }),
        ("mouse", "keyboard", Relation::Sibling { distance: 2 }),
        ("glasses", "spectacles", Relation::Same),
        // They meet at "artifact" only.
        ("mug", "chair", Relation::None),
        ("object", "chair", Relation::None),
        ("chair", "person", Relation::None),
        ("chairman", "person", Relation::Narrower { distance: 1 }),
        ("Leaning Tower", "tower", Relation::None),
        ("qwxyz", "qwxyz", Relation::None),
    ];
    for (phrase, other, expected) in cases {
        assert_eq!(lexicon.relation(phrase, other), expected, "{phrase} to {other}");
    }
}

#[test]
fn kinds() {
    let lexicon = tiny();
    let is_a =
        |phrase, ancestor| matches!(lexicon.relation(phrase, ancestor), Relation::Same | Relation::Narrower { .. });
    for (phrase, ancestor) in [
        ("mouse", "animal"),
        ("mice", "input device"),
        ("red chair", "furniture"),
        ("book", "artifact"),
        ("mug", "mug"),
    ] {
        assert!(is_a(phrase, ancestor), "{phrase} {ancestor}");
    }
    for (phrase, ancestor) in
        [("chair", "person"), ("furniture", "chair"), ("mug", "red mug"), ("slang", "entity"), ("", "mug")]
    {
        assert!(!is_a(phrase, ancestor), "{phrase} {ancestor}");
    }
}

#[test]
fn tags_become_targets() {
    let lexicon = tiny();
    let targets = ["dining table", "seat", "office chair", "mug", "qwxyz"];
    let of = |tag| lexicon.to_targets(tag, &targets).iter().map(|m| m.target).collect::<Vec<_>>();
    assert_eq!(of("table"), [0]);
    assert_eq!(of("stool"), [1]);
    assert_eq!(of("noggin"), [3]);
    assert_eq!(of("chair"), [1, 2], "a kind of the one, and maybe the other");
    assert_eq!(of("red chair"), [1, 2]);
    assert_eq!(of("furniture"), [1, 0], "the office chair is too far below");
    assert_eq!(of("rat"), [0; 0]);
    assert_eq!(of(""), [0; 0]);
}

#[test]
fn groups() {
    let lexicon = tiny();
    let labels = ["stool", "Mugs", "tabouret", "mouse", "armchair", "chair", "red mug", "keyboard", "?!", "noggin"];
    let groups = lexicon.group(&labels).into_iter();
    let groups: Vec<(Vec<&str>, Option<usize>)> =
        groups.map(|g| (g.members.iter().map(|&m| labels[m]).collect(), g.parent)).collect();
    assert_eq!(
        groups,
        [
            (vec!["stool", "tabouret"], None),
            (vec!["Mugs", "noggin"], None),
            (vec!["mouse"], None),
            (vec!["armchair"], Some(4)),
            (vec!["chair"], None),
            (vec!["red mug"], Some(1)),
            (vec!["keyboard"], None),
            (vec!["?!"], None),
        ]
    );
    // The company a mouse keeps.
    let parents = |labels: &[&str]| lexicon.group(labels)[0].parent;
    assert_eq!(parents(&["mouse", "animal", "rat", "rodent"]), Some(3));
    assert_eq!(parents(&["mouse", "animal", "computer mouse", "keyboard", "input device"]), Some(3));
    assert_eq!(lexicon.group(&[]), []);
}

#[test]
fn lists() {
    let lexicon = tiny();
    assert_eq!(lexicon.subclasses("furniture", 3), ["chair", "table", "seat"]);
    assert_eq!(lexicon.subclasses("mug", 5), ["coffee mug"]);
    assert_eq!(lexicon.subclasses("tower", 5), [""; 0], "the Leaning Tower is no kind of tower");
    assert_eq!(lexicon.subclasses("red mug", 5), [""; 0]);
    let probe = lexicon.nouns_for_probe(6);
    assert_eq!(probe.len(), 6);
    assert_eq!(probe[..2], ["chair", "mouse"]);
    let all = lexicon.nouns_for_probe(usize::MAX);
    assert!(["mug", "mouse", "armchair"].iter().all(|noun| all.iter().any(|n| n == noun)), "{all:?}");
    assert!(
        ["object", "men", "leaning tower", "lorgnons", "noggin", "chairman"]
            .iter()
            .all(|n| !all.contains(&(*n).into()))
    );
}

#[test]
fn bad_files_are_named() {
    let error = |index: &str, data: &str, exceptions: &str, counts: &str| {
        parse(index, data, exceptions, counts).unwrap_err().to_string()
    };
    let data = |from: &str, to: &str| error(INDEX, &DATA.replacen(from, to, 1), EXCEPTIONS, COUNTS);
    let index = |from: &str, to: &str| error(&INDEX.replacen(from, to, 1), DATA, EXCEPTIONS, COUNTS);
    let cases = [
        (data("03 n 01 entity", "xx n 01 entity"), "data.noun:3: expected a lexicographer file number, found \"xx\""),
        (data("03 n 01", "03 v 01"), "data.noun:3: expected synset type 'n', found \"v\""),
        (
            data("00000020 03 n 02", "00000020 03 n 03"),
            "data.noun:4: expected a word that index.noun lists here, found \"001\"",
        ),
        (data("00000030 03", "00000015 03"), "data.noun:5: expected offsets in rising order, found \"15\""),
        (
            data("@ 00000030", "@ 00000031"),
            "data.noun:6: expected a pointer to a synset of this file, found \"00000031\"",
        ),
        (
            data("| root", "root"),
            "data.noun:3: expected '|' and a gloss, found \"00000010 03 n 01 entity 0 000 root\\n\"",
        ),
        (data("entity 0 000", "entity 0 001"), "data.noun:3: expected a pointer symbol, found \"end of line\""),
        (data("entity 0 000", "entity 0 001 @ 00000400 n 0000"), "data.noun:3: expected hypernyms without a circle"),
        (data("| not proposed\n", "| not prop"), "data.noun:34: expected a line end, as the file is cut off"),
        (
            data("00000400 10 n 01 slang 0 001 @ 00000010 n 0000 | not proposed\n", ""),
            "index.noun:35: expected the offset",
        ),
        (index("animal n", "animal v"), "index.noun:3: expected part of speech 'n', found \"v\""),
        (index("armchair n", "aardvark n"), "index.noun:4: expected nouns in alphabetical order, found \"aardvark\""),
        (
            index("1 0 1 1 00000210", "2 0 1 1 00000210"),
            "index.noun:3: expected a synset offset, found \"end of line\"",
        ),
        (index("00000210", "00000209"), "index.noun:3: expected the offset of a line of data.noun, found \"00000209\""),
        (error(INDEX, DATA, "men man\nmice\n", COUNTS), "noun.exc:2: expected a base form, found \"end of line\""),
        (error(INDEX, DATA, EXCEPTIONS, "mug 1 1\n"), "cntlist.rev:1: expected a sense key, found \"mug\""),
        (error(INDEX, DATA, EXCEPTIONS, "mug%1:06:00:: 1 -\n"), "cntlist.rev:1: expected a count, found \"-\""),
    ];
    for (found, expected) in cases {
        assert!(found.starts_with(expected), "{found}\nshould start with\n{expected}");
    }
    let bytes = Sources { index: b"  1 x\nm\xffg n 1\n", ..Sources::default() };
    assert!(Lexicon::parse(&bytes).unwrap_err().to_string().starts_with("index.noun:2: expected UTF-8"));
    let absent = Lexicon::open(Path::new("/nonexistent/wordnet")).unwrap_err();
    assert!(absent.to_string().contains("index.noun"), "{absent}");
    assert!(matches!(absent, LexiconError::Read { .. }));
}

#[test]
fn shared_by_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Lexicon>();
}

proptest! {
    #[test]
    fn any_text_is_answered(phrase in any::<String>(), other in "[a-z _.'-]{0,40}", index in 0_usize..DATA.len()) {
        let lexicon = tiny();
        for text in [&*phrase, &*other, DATA.get(index..).unwrap_or("")] {
            let _ = (lexicon.base_form(text), lexicon.relation(text, "chair"), lexicon.subclasses(text, 9));
        }
        prop_assert!(lexicon.to_targets(&phrase, &[&other, "mug"]).len() <= 2);
    }

    #[test]
    fn every_label_is_in_one_group(labels in prop::collection::vec("(red |big )?(mug|mice|chairs?|stool|rat|table|x)|\\PC{0,9}", 0..12)) {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let groups = tiny().group(&labels);
        let mut members: Vec<usize> = groups.iter().flat_map(|group| group.members.clone()).collect();
        members.sort_unstable();
        prop_assert_eq!(members, (0..labels.len()).collect::<Vec<_>>());
        for (at, group) in groups.iter().enumerate() {
            // Climbing ends: no group is above itself.
            let (mut above, mut steps) = (group.parent, 0);
            while let Some(parent) = above {
                prop_assert!(parent != at && steps < groups.len());
                above = groups[parent].parent;
                steps += 1;
            }
        }
    }

    #[test]
    fn damaged_files_are_errors_not_panics(cut in 0..DATA.len(), byte in any::<u8>(), at in 0..DATA.len()) {
        let mut data = DATA.as_bytes().to_vec();
        data[at] = byte;
        for data in [&data, &DATA.as_bytes()[..cut]] {
            let _ = Lexicon::parse(&Sources { index: INDEX.as_bytes(), data, exceptions: b"", counts: b"" });
        }
    }

    #[test]
    fn relations_mirror(a in "(red )?(mug|mouse|chair|armchair|seat|stool|rat|table|book)", b in "(mug|mouse|chair|seat|rat|table|book)") {
        let lexicon = tiny();
        match (lexicon.relation(&a, &b), lexicon.relation(&b, &a)) {
            (Relation::Narrower { distance: there }, Relation::Broader { distance: back })
            | (Relation::Broader { distance: there }, Relation::Narrower { distance: back }) => prop_assert_eq!(there, back),
            (there, back) => prop_assert_eq!(there, back),
        }
    }
}
