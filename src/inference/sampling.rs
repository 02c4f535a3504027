//! Nucleus sampling (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration").
//!
//! The next token is drawn from the likeliest tokens that together have probability `top_p`, after the logits were divided
//! by `temperature`: the order and the bounds of Hugging Face's `TemperatureLogitsWarper` and `TopPLogitsWarper`. What is
//! reported as a token's probability is the model's own, over all tokens and without temperature: how a caption was drawn
//! says nothing about what is in the picture.

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; below 1 likely tokens become likelier. 0: always the likeliest token.
    pub temperature: f32,
    /// Probability that the tokens drawn from have together, in (0, 1].
    pub top_p: f32,
}

/// A token that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Its number.
    pub token: usize,
    /// Logarithm of its probability in the model's own distribution.
    pub log_probability: f32,
}

/// Draws tokens; the same seed and logits give the same tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: fastrand::Rng,
    nucleus: Vec<(usize, f32)>,
}

impl Sampler {
    /// A sampler at the beginning of the sequence that `seed` stands for.
    #[must_use]
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Self { sampling, random: fastrand::Rng::with_seed(seed), nucleus: Vec::new() }
    }

    /// The tokens that may be drawn after `logits`, by falling share; shares sum to 1. Empty where no logit is a number.
    pub fn nucleus(&mut self, logits: &[f32]) -> &[(usize, f32)] {
        let Sampling { temperature, top_p } = self.sampling;
        let nucleus = &mut self.nucleus;
        nucleus.clear();
        nucleus.extend(logits.iter().copied().enumerate().filter(|(_, logit)| logit.is_finite()));
        nucleus.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let Some(&(_, most)) = nucleus.first() else { return nucleus };
        if temperature <= 0.0 {
            nucleus.truncate(1);
        }
        let divisor = if temperature <= 0.0 { 1.0 } else { temperature };
        for (_, share) in nucleus.iter_mut() {
            *share = ((*share - most) / divisor).exp();
        }
        let sum: f64 = nucleus.iter().map(|&(_, share)| f64::from(share)).sum();
        let mut before = 0.0;
        let kept = nucleus.iter().take_while(|&&(_, share)| {
            let fits = before < f64::from(top_p);
            before += f64::from(share) / sum;
            fits
        });
        // The likeliest token stays, whatever top_p says.
        let kept = kept.count().max(1);
        nucleus.truncate(kept);
        let sum: f64 = nucleus.iter().map(|&(_, share)| f64::from(share)).sum();
        for (_, share) in nucleus.iter_mut() {
            *share = (f64::from(*share) / sum) as f32;
        }
        nucleus
    }

    /// Draws the token that follows; `None` where no logit is a number.
    pub fn draw(&mut self, logits: &[f32]) -> Option<Drawn> {
        self.nucleus(logits);
        let mut left = self.random.f32();
        let fits = |&&(_, share): &&(usize, f32)| {
            left -= share;
            left < 0.0
        };
        // Rounding may leave a trace behind the last one.
        let &(token, _) = self.nucleus.iter().find(fits).or(self.nucleus.last())?;
        Some(Drawn { token, log_probability: log_probability(logits, token) })
    }
}

/// Logarithm of a token's probability, over all tokens and at temperature 1; −∞ for a token that is not there.
fn log_probability(logits: &[f32], token: usize) -> f32 {
    let finite = || logits.iter().copied().filter(|logit| logit.is_finite());
    let Some(&own) = logits.get(token).filter(|logit| logit.is_finite()) else { return f32::NEG_INFINITY };
    let most = finite().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = finite().map(|logit| f64::from(logit - most).exp()).sum();
    (f64::from(own - most) - sum.ln()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of the probabilities 0.5, 0.25, 0.15, 0.1, out of order.
    fn logits() -> Vec<f32> {
        [0.15_f32, 0.5, 0.1, 0.25].iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_that_reaches_top_p() {
        let nucleus = |temperature, top_p| Sampler::new(Sampling { temperature, top_p }, 0).nucleus(&logits()).to_vec();
        let tokens = |top_p| nucleus(1.0, top_p).iter().map(|n| n.0).collect::<Vec<_>>();
        assert_eq!(tokens(0.0), [1]);
        assert_eq!(tokens(0.4), [1]);
        assert_eq!(tokens(0.6), [1, 3]);
        assert_eq!(tokens(0.8), [1, 3, 0]);
        assert_eq!(tokens(1.0), [1, 3, 0, 2]);
        let two = nucleus(1.0, 0.6);
        assert!((two[0].1 - 2.0 / 3.0).abs() < 1e-6 && (two[1].1 - 1.0 / 3.0).abs() < 1e-6, "{two:?}");
        // At temperature 0.5 probabilities are squared: 0.25, 0.0625, 0.0225, 0.01 of 0.345.
        let cold = nucleus(0.5, 1.0);
        assert!((cold[0].1 - 0.25 / 0.345).abs() < 1e-6, "{cold:?}");
        assert_eq!(nucleus(0.0, 1.0), [(1, 1.0)]);
    }

    #[test]
    fn draws_follow_the_shares_and_the_seed() {
        let sampling = Sampling { temperature: 1.0, top_p: 0.8 };
        let draws = |seed| {
            let mut sampler = Sampler::new(sampling, seed);
            (0..4000).map(|_| sampler.draw(&logits()).unwrap()).collect::<Vec<_>>()
        };
        let first = draws(7);
        assert_eq!(first, draws(7));
        assert_ne!(first, draws(8));
        let share = |token| first.iter().filter(|drawn| drawn.token == token).count() as f32 / 4000.0;
        for (token, expected) in [(1, 0.5 / 0.9), (3, 0.25 / 0.9), (0, 0.15 / 0.9), (2, 0.0)] {
            assert!((share(token) - expected).abs() < 0.03, "{token}: {} instead of {expected}", share(token));
        }
        // Probabilities are those of the whole distribution.
        assert!(first.iter().filter(|d| d.token == 3).all(|d| (d.log_probability.exp() - 0.25).abs() < 1e-6));
    }

    #[test]
    fn what_is_no_number_is_never_drawn() {
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, top_p: 1.0 }, 1);
        assert_eq!(sampler.draw(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(sampler.draw(&[]), None);
        assert_eq!(sampler.draw(&[f32::NAN, -3.0]), Some(Drawn { token: 1, log_probability: 0.0 }));
    }
}
