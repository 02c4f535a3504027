//! Opening bags.

use std::path::Path;

use anyhow::Result;
use scenelex::replay::Bag;

/// Opens the bag, and warns of what is wrong with it although it can be read.
pub fn open(path: &Path) -> Result<Bag> {
    let bag = Bag::open(path)?;
    for problem in bag.problems() {
        tracing::warn!("{problem}");
    }
    Ok(bag)
}
