//! How different two pictures are, as far as "is this another scene?" goes.
//!
//! A signature is the mean luma of 16×12 blocks, from about every tenth pixel of a block in both directions, with the whole picture's mean
//! taken out and its contrast set to one: a lamp or the camera's exposure changes both and is no new scene. The difference
//! is (1 − r) / 2 for the correlation r of two signatures: 0 for the same picture, about 0.5 for unrelated ones. `benches/imaging.rs`
//! (`scene/signature`) times it.

use crate::types::RgbImage;

const COLUMNS: usize = 16;
const ROWS: usize = 12;
/// Pixels of a block that are read, in each direction: the cost does not grow with the picture.
const READ: usize = 10;
/// Standard deviation in grey levels below which a picture counts as uniform (a covered lens); it resembles only another.
const UNIFORM: f32 = 1.0;

/// What is remembered of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SceneSignature([f32; COLUMNS * ROWS]);

impl SceneSignature {
    /// The signature of a picture of any size; all zero for an empty or uniform one.
    #[must_use]
    pub fn of(image: &RgbImage) -> Self {
        let (width, height) = (image.size.width as usize, image.size.height as usize);
        let (column_stride, row_stride) = ((width / (COLUMNS * READ)).max(1), (height / (ROWS * READ)).max(1));
        let mut sums = [0u64; COLUMNS * ROWS];
        let mut counts = [0u64; COLUMNS * ROWS];
        for (y, row) in image.data.chunks_exact((width * 3).max(1)).enumerate().step_by(row_stride) {
            let base = (y * ROWS / height.max(1)).min(ROWS - 1) * COLUMNS;
            for (x, pixel) in row.chunks_exact(3).enumerate().step_by(column_stride) {
                let block = base + x * COLUMNS / width.max(1);
                let &[r, g, b] = pixel else { continue };
                // Rec. 601 luma in 1/256.
                let luma = 77 * u64::from(r) + 150 * u64::from(g) + 29 * u64::from(b);
                if let (Some(sum), Some(count)) = (sums.get_mut(block), counts.get_mut(block)) {
                    *sum += luma;
                    *count += 1;
                }
            }
        }
        let mut means = [0.0; COLUMNS * ROWS];
        for ((mean, sum), count) in means.iter_mut().zip(sums).zip(counts) {
            *mean = if count > 0 { sum as f32 / (256.0 * count as f32) } else { 0.0 };
        }
        let mean = means.iter().sum::<f32>() / means.len() as f32;
        let spread = (means.iter().map(|m| (m - mean).powi(2)).sum::<f32>() / means.len() as f32).sqrt();
        let scale = if spread < UNIFORM { 0.0 } else { 1.0 / spread };
        Self(means.map(|m| (m - mean) * scale))
    }

    /// Difference in [0, 1]: 0 same, about 0.5 unrelated, 1 inverted.
    #[must_use]
    pub fn difference(&self, other: &Self) -> f32 {
        let (one, two) = (self.is_uniform(), other.is_uniform());
        if one || two {
            return if one && two { 0.0 } else { 0.5 };
        }
        let correlation = self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum::<f32>() / self.0.len() as f32;
        ((1.0 - correlation) / 2.0).clamp(0.0, 1.0)
    }

    fn is_uniform(&self) -> bool {
        self.0.iter().all(|&value| value == 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ImageSize;

    /// A scene of overlapping rectangles, the same for the same seed, seen with an offset and another exposure.
    fn scene(seed: u64, shift: i64, gain: f32, offset: f32) -> RgbImage {
        let (width, height) = (160i64, 120i64);
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = |below: i64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as i64).rem_euclid(below)
        };
        let boxes: Vec<[i64; 5]> =
            (0..12).map(|_| [next(width), next(height), 20 + next(60), 20 + next(50), 20 + next(200)]).collect();
        let mut data = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let inside = |b: &&[i64; 5]| (0..b[2]).contains(&(x + shift - b[0])) && (0..b[3]).contains(&(y - b[1]));
                let grey = boxes.iter().rev().find(inside).map_or(90, |b| b[4]) as f32;
                data.extend([(grey * gain + offset).clamp(0.0, 255.0) as u8; 3]);
            }
        }
        RgbImage { size: ImageSize::new(width as u32, height as u32), data }
    }

    fn difference(a: &RgbImage, b: &RgbImage) -> f32 {
        SceneSignature::of(a).difference(&SceneSignature::of(b))
    }

    #[test]
    fn light_and_a_small_step_are_no_new_scene_and_another_place_is() {
        let mut unrelated = 0.0;
        for seed in 1..20 {
            let here = scene(seed, 0, 1.0, 0.0);
            assert!(difference(&here, &here) < 1e-5);
            assert!(difference(&here, &scene(seed, 0, 0.6, 25.0)) < 0.02, "seed {seed}: exposure");
            assert!(difference(&here, &scene(seed, 4, 1.0, 0.0)) < 0.12, "seed {seed}: a step aside");
            unrelated += difference(&here, &scene(seed + 100, 0, 1.0, 0.0)) / 19.0;
        }
        assert!((0.35..0.65).contains(&unrelated), "unrelated scenes differ by {unrelated}");
    }

    #[test]
    fn a_covered_lens_is_another_scene_and_stays_one() {
        let dark = RgbImage { size: ImageSize::new(160, 120), data: vec![3; 160 * 120 * 3] };
        let here = scene(5, 0, 1.0, 0.0);
        assert_eq!(difference(&dark, &here), 0.5);
        assert_eq!(difference(&dark, &dark), 0.0);
        assert_eq!(difference(&RgbImage::default(), &dark), 0.0);
    }
}
