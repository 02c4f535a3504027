//! The parts of an image that proposers look at.

use crate::types::{ImageSize, RgbImage};

/// The parts of an image that are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grid {
    /// The whole image.
    #[default]
    Whole,
    /// The four cells of a 2×2 grid (SG in LLM2Labels).
    Cells,
    /// Both (SGC).
    Both,
}

impl Grid {
    /// Shows `look` the parts of `image` one after the other, the whole first. `cell` is room for a part.
    pub(super) fn each<E>(
        self,
        image: &RgbImage,
        cell: &mut RgbImage,
        mut look: impl FnMut(&RgbImage) -> Result<(), E>,
    ) -> Result<(), E> {
        if self != Self::Cells {
            look(image)?;
        }
        if self != Self::Whole {
            for quarter in 0..4 {
                crop_quarter(image, quarter, cell);
                if cell.size.area() > 0 {
                    look(cell)?;
                }
            }
        }
        Ok(())
    }
}

/// One of the four quarters: 0 and 1 above, 2 and 3 below.
fn crop_quarter(image: &RgbImage, quarter: u32, out: &mut RgbImage) {
    let (half_width, half_height) = (image.size.width / 2, image.size.height / 2);
    out.size = ImageSize::new(half_width, half_height);
    out.data.clear();
    let (x, y) = ((quarter % 2) * half_width, (quarter / 2) * half_height);
    let row_bytes = image.size.width as usize * 3;
    let (start, length) = (x as usize * 3, half_width as usize * 3);
    for row in image.data.chunks_exact(row_bytes.max(1)).skip(y as usize).take(half_height as usize) {
        out.data.extend_from_slice(row.get(start..start + length).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_tile_the_image() {
        let (width, height) = (6u32, 4u32);
        let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, 0])).collect();
        let image = RgbImage { size: ImageSize::new(width, height), data };
        let mut cell = RgbImage::default();
        for (quarter, corner) in [(0, [0, 0]), (1, [3, 0]), (2, [0, 2]), (3, [3, 2])] {
            crop_quarter(&image, quarter, &mut cell);
            assert_eq!((cell.size, cell.data.len()), (ImageSize::new(3, 2), 18));
            assert_eq!(cell.data[..2], corner);
            assert_eq!(cell.data[15..17], [corner[0] + 2, corner[1] + 1]);
        }
        crop_quarter(&RgbImage { size: ImageSize::new(1, 1), data: vec![0; 3] }, 3, &mut cell);
        assert_eq!(cell.size.area(), 0);
    }
}
