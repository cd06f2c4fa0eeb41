//! The beta distribution, which order statistics and counted rates follow.

/// Steps of bisection: enough for every bit of an f64 in [0, 1].
const BISECTIONS: usize = 200;

/// ln of the gamma function for positive `x` (Lanczos approximation, g = 7, n = 9).
pub(crate) fn ln_gamma(x: f64) -> f64 {
    const C: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let sum = C.iter().enumerate().skip(1).fold(C[0], |sum, (i, c)| sum + c / (x + i as f64));
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Regularised incomplete beta function: P(Beta(a, b) <= x), by Lentz's continued fraction (NIST DLMF 8.17.22).
pub(crate) fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_cdf(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let tiny = 1e-300;
    let guard = |v: f64| if v.abs() < tiny { tiny } else { v };
    let (mut c, mut d) = (1.0, 1.0 / guard(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for i in 1..10_000 {
        let m = i as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (front * fraction).clamp(0.0, 1.0)
}

/// The `q` quantile of Beta(a, b), by bisection.
pub(crate) fn beta_quantile(q: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if beta_cdf(middle, a, b) < q {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// ln P(`k` of `m`) when the rate follows Beta(a, b).
pub(crate) fn ln_beta_binomial(k: u64, m: u64, a: f64, b: f64) -> f64 {
    let (k, m) = (k as f64, m as f64);
    let ln_beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let ln_choose = ln_gamma(m + 1.0) - ln_gamma(k + 1.0) - ln_gamma(m - k + 1.0);
    ln_choose + ln_beta(k + a, m - k + b) - ln_beta(a, b)
}

/// ln P(at most `count`) of a Poisson count; linear between whole numbers, 0 for more than anybody would sum over.
pub(crate) fn ln_poisson_at_most(count: f64, mean: f64) -> f64 {
    const MANY: f64 = 60.0;
    if count >= MANY {
        return 0.0;
    }
    let whole = |count: f64| {
        let (mut term, mut sum) = (1.0_f64, 1.0_f64);
        for k in 1..=count as u32 {
            term *= mean / f64::from(k);
            sum += term;
        }
        sum.ln() - mean
    };
    let (low, way) = (count.floor(), count.fract());
    let at = whole(low);
    if way > 0.0 { at + way * (whole(low + 1.0) - at) } else { at }
}

/// P(at least `count`) of a Poisson count.
pub(crate) fn poisson_at_least(count: u32, mean: f64) -> f64 {
    match count {
        0 => 1.0,
        _ => 1.0 - ln_poisson_at_most(f64::from(count - 1), mean).exp(),
    }
}
