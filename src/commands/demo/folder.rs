//! What an earlier demo left in the folder of this one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Name of the picture of all pictures.
pub const SHEET: &str = "contact_sheet.png";

/// Name of the summary for programs.
pub const SUMMARY: &str = "summary.json";

/// Whether a demo makes a file of that name: a picture or the summary.
fn is_finding(name: &str) -> bool {
    let number = name.strip_prefix("overlay_").and_then(|rest| rest.strip_suffix(".png"));
    name == SHEET
        || name == SUMMARY
        || number.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Takes away what an earlier demo found out. Pictures of this one may be fewer, and would lie between them; and where this
/// one fails, nobody is to take those figures for its own.
pub fn remove_findings(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_finding) {
            let path = entry.path();
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The folder of the recording, without the bag of an earlier demo.
pub fn fresh_bag_folder(folder: &Path) -> Result<PathBuf> {
    let bag = folder.join("bag");
    // Only what this program writes is taken away; anything else makes the recorder refuse the folder.
    for file in ["bag_0.mcap", "metadata.yaml"] {
        match fs::remove_file(bag.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", bag.join(file).display()));
            }
            _ => {}
        }
    }
    Ok(bag)
}

#[cfg(test)]
mod tests {
    use super::{super::super::testing::Scratch, *};

    #[test]
    fn what_an_earlier_demo_found_out_is_taken_away() {
        let scratch = Scratch::new("findings");
        let file = |name: &str| scratch.0.join(name);
        let (old, others) = (
            ["overlay_01.png", "overlay_12.png", "contact_sheet.png", "summary.json"],
            ["overlay_1.png", "overlay_ab.png", "overlay_001.png", "my_overlay_01.png", "overlay_01.jpg"],
        );
        for name in old.iter().chain(&others) {
            fs::write(file(name), "an earlier one").unwrap();
        }
        remove_findings(&scratch.0).unwrap();
        assert!(old.iter().all(|name| !file(name).exists()));
        assert!(others.iter().all(|name| file(name).exists()));
    }
}
