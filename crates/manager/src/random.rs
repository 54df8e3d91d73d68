//! Randomness that is not key material, passed in so that tests own it.

use uuid::Uuid;

/// Identifiers and jitter. Keys come from `keystead_keyring` alone.
pub trait Random: Send + Sync + 'static {
    /// A new identifier.
    fn uuid(&self) -> Uuid;

    /// A number from 0 (included) to 1 (excluded).
    fn jitter(&self) -> f64;
}

/// The system's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn jitter(&self) -> f64 {
        // 53 bits: what a f64 holds exactly.
        (Uuid::new_v4().as_u128() >> 75) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_range_and_spreads() {
        let values: Vec<f64> = (0..1_000).map(|_| SystemRandom.jitter()).collect();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(values.iter().any(|value| *value < 0.2) && values.iter().any(|value| *value > 0.8));
    }
}
