//! Where the models are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The models made from the simulated world, which ship with the program.
const SHIPPED: &str = "models/sim";

/// A path that ships with the program: as it is from the working directory, else beside the installed executable.
pub fn shipped(path: &str) -> PathBuf {
    let here = PathBuf::from(path);
    if here.exists() {
        return here;
    }
    // <prefix>/bin/scenelex or <prefix>/lib/scenelex/scenelex, as `cargo install` and `colcon build` place it.
    let executable = std::env::current_exe().ok();
    let installed = executable.iter().flat_map(|exe| exe.ancestors().skip(2).take(2)).map(|prefix| {
        let share: &Path = &prefix.join("share/scenelex");
        share.join(path)
    });
    installed.into_iter().find(|path| path.exists()).unwrap_or(here)
}

/// The folder of the detector's and the segmenter's bundle: `given`, or the one that ships.
pub fn folder(given: Option<&Path>) -> Result<PathBuf> {
    let folder = given.map_or_else(|| shipped(SHIPPED), Path::to_owned);
    for part in ["detector", "segmenter"] {
        let manifest = folder.join(part).join("bundle.toml");
        if !manifest.is_file() {
            bail!("{} not found; --models names the folder with detector/ and segmenter/", manifest.display());
        }
    }
    Ok(folder)
}
