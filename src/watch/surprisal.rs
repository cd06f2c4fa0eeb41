//! `-ln p` in fixed point: what the history keeps of p, and what the budget reckons with.

/// Steps of 1: p is kept to a twentieth of a percent.
const STEPS: f64 = 2048.0;

/// How unusual a frame is: grows as p falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Surprisal(pub u16);

impl Surprisal {
    pub const MAX: Surprisal = Surprisal(u16::MAX);

    /// p below `e^-32`, and what is no number, are held there.
    pub fn of_p(p: f64) -> Surprisal {
        Surprisal::new(-p.ln())
    }

    /// Of `-ln p`, held between 0 and 32; NaN counts as 32.
    pub fn new(value: f64) -> Surprisal {
        if value.is_nan() {
            return Surprisal::MAX;
        }
        Surprisal((value * STEPS).round().clamp(0.0, f64::from(u16::MAX)) as u16)
    }

    pub fn value(self) -> f64 {
        f64::from(self.0) / STEPS
    }

    pub fn p(self) -> f64 {
        (-self.value()).exp()
    }
}
