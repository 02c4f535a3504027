//! The contact sheet: pairs of what the camera saw and what the node made of it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::{RgbImage as Canvas, imageops};
use scenelex::types::RgbImage;

use super::overlay::Picture;

/// Width of one picture on the sheet, pixels.
const CELL: u32 = 480;
/// Pairs side by side, and rows of them.
const COLUMNS: u32 = 2;
const ROWS: u32 = 3;
/// Between the two pictures of a pair, between pairs and around everything.
const GAP: u32 = 4;
const SPACE: u32 = 24;
const BACKGROUND: image::Rgb<u8> = image::Rgb([246, 247, 249]);

/// Writes the sheet as PNG.
pub fn write(path: &Path, pictures: &[Picture]) -> Result<()> {
    let chosen = spread(pictures.len(), (COLUMNS * ROWS) as usize);
    let chosen: Vec<&Picture> = chosen.into_iter().filter_map(|index| pictures.get(index)).collect();
    let first = chosen.first().context("no picture to put on the sheet")?;
    let size = first.camera.size;
    ensure!(size.width > 0 && size.height > 0, "the first picture is empty");
    let height = (u64::from(CELL) * u64::from(size.height) / u64::from(size.width)).clamp(1, 4 * u64::from(CELL));
    let height = u32::try_from(height)?;

    let count = u32::try_from(chosen.len())?;
    let columns = COLUMNS.min(count);
    let rows = count.div_ceil(COLUMNS);
    let pair = 2 * CELL + GAP;
    let mut sheet = Canvas::from_pixel(SPACE + columns * (pair + SPACE), SPACE + rows * (height + SPACE), BACKGROUND);
    for (index, picture) in (0_u32..).zip(chosen) {
        // Down the columns: the first half of the scene on the left, the second on the right.
        let (column, row) = (index / rows, index % rows);
        let x = i64::from(SPACE + column * (pair + SPACE));
        let y = i64::from(SPACE + row * (height + SPACE));
        imageops::replace(&mut sheet, &cell(&picture.camera, height)?, x, y);
        imageops::replace(&mut sheet, &cell(&picture.overlay, height)?, x + i64::from(CELL + GAP), y);
    }
    sheet.save(path).with_context(|| format!("cannot write {}", path.display()))
}

/// `wanted` indices spread evenly over `available`, fewer where there are not as many.
fn spread(available: usize, wanted: usize) -> Vec<usize> {
    let wanted = wanted.min(available);
    (0..wanted).map(|i| (2 * i + 1) * available / (2 * wanted)).collect()
}

fn cell(picture: &RgbImage, height: u32) -> Result<Canvas> {
    let whole = Canvas::from_raw(picture.size.width, picture.size.height, picture.data.clone())
        .context("a picture's data do not have its size")?;
    Ok(imageops::resize(&whole, CELL, height, imageops::FilterType::CatmullRom))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_spread_without_repetition() {
        assert_eq!(spread(12, 6), [1, 3, 5, 7, 9, 11]);
        assert_eq!(spread(3, 6), [0, 1, 2]);
        assert_eq!(spread(7, 3), [1, 3, 5]);
        assert!(spread(0, 6).is_empty());
    }
}
