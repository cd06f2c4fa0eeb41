//! Every instruction set against a direct convolution, bit for bit.

use proptest::prelude::*;

use super::*;

impl ConvShape {
    /// Elements of the output, `out_h x out_w x out_c`.
    fn out_len(&self) -> usize {
        self.out_h() * self.out_w() * self.out_c
    }
}

/// Direct convolution; the formula of [`Epilogue`] word for word. `f32` output.
fn reference(
    s: &ConvShape,
    weights: &[i8],
    bias: &[i32],
    x_zero_point: u8,
    e: &Epilogue,
    input: &[u8],
    other: &[u8],
) -> Vec<f32> {
    let mut out = Vec::new();
    for oy in 0..s.out_h() {
        for ox in 0..s.out_w() {
            for o in 0..s.out_c {
                let mut acc = bias[o];
                for ky in 0..s.kernel[0] {
                    for kx in 0..s.kernel[1] {
                        let y = (oy * s.stride[0] + ky * s.dilation[0]).wrapping_sub(s.pads[0]);
                        let x = (ox * s.stride[1] + kx * s.dilation[1]).wrapping_sub(s.pads[1]);
                        if y >= s.in_h || x >= s.in_w {
                            continue;
                        }
                        for i in 0..s.in_c {
                            let w = weights[((o * s.in_c + i) * s.kernel[0] + ky) * s.kernel[1] + kx];
                            let x = i32::from(input[(y * s.in_w + x) * s.in_c + i]) - i32::from(x_zero_point);
                            acc = acc.wrapping_add(x * i32::from(w));
                        }
                    }
                }
                let mut value = acc as f32 * e.scale[o];
                if let Some(r) = e.residual {
                    let b = i32::from(other[out.len()]) - i32::from(r.zero_point);
                    let own = value.clamp(r.conv_lo, r.conv_hi);
                    let own = r.conv_step.map_or(own, |step| own.round_ties_even() * step);
                    value = own + b as f32 * r.scale;
                }
                let value = value.max(f32::from(e.lo) - f32::from(e.zero_point));
                out.push(if e.hi == 255 { value } else { value.min(f32::from(e.hi) - f32::from(e.zero_point)) });
            }
        }
    }
    out
}

fn reference_u8(e: &Epilogue, value: f32) -> u8 {
    let zero_point = f32::from(e.zero_point);
    let value = value.clamp(f32::from(e.lo) - zero_point, f32::from(e.hi) - zero_point);
    (value.round_ties_even() + zero_point) as u8
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let extreme = self.below(4) == 0;
        let byte = |r: u32| if extreme { [0, 255][r as usize % 2] } else { r as u8 };
        (0..n).map(|_| byte(self.next() >> 8)).collect()
    }
}

/// A case of this shape with random values, on every instruction set and 1 to 3 threads.
fn check(s: &ConvShape, seed: u64) {
    let mut random = Random(seed);
    let weights: Vec<i8> = match random.below(3) {
        0 => random.bytes(s.weights_len()).iter().map(|&b| if b > 127 { 127 } else { -128 }).collect(),
        _ => random.bytes(s.weights_len()).iter().map(|&b| b as i8).collect(),
    };
    let bias: Vec<i32> = (0..s.out_c).map(|_| random.next() as i32 % 20_000).collect();
    let input = random.bytes(s.in_len());
    let other = random.bytes(s.out_len());
    let x_zero_point = random.bytes(1)[0];
    let k = (s.in_c * s.kernel[0] * s.kernel[1]) as f32;
    let scale = (0..s.out_c).map(|_| (random.below(1000) as f32 + 1.0) / 1000.0 / 50.0 / k.sqrt()).collect();
    let zero_point = [0, 7, 128, 255][random.below(4)];
    let (lo, hi) = [(0, 255), (zero_point, 255), (zero_point.min(3), zero_point.max(200))][random.below(3)];
    let residual = (random.below(2) == 0).then(|| {
        let conv_step = [None, Some(0.75)][random.below(2)];
        let (least, most) = conv_step.map_or((f32::NEG_INFINITY, f32::INFINITY), |_| (-130.0, 125.0));
        Residual {
            scale: random.below(100) as f32 / 61.0,
            zero_point: random.bytes(1)[0],
            conv_step,
            conv_lo: [least, -20.5][random.below(2)],
            conv_hi: [most, 40.25][random.below(2)],
        }
    });
    let e = Epilogue { scale, zero_point, lo, hi, residual };
    let f32s = reference(s, &weights, &bias, x_zero_point, &e, &input, &other);
    let u8s: Vec<u8> = f32s.iter().map(|&v| reference_u8(&e, v)).collect();
    let other = e.residual.map(|_| &other[..]);
    for isa in Isa::available() {
        let conv = Conv::new(isa, s, &weights, &bias, x_zero_point, e.clone()).unwrap();
        let pool = Pool::new(1 + random.below(3));
        let mut scratch = Scratch::default();
        let mut out = vec![0xaa; s.out_len()];
        conv.run(&pool, &mut scratch, &input, other, OutputMut::U8(&mut out)).unwrap();
        assert_eq!(out, u8s, "{} {s:?} {:?}", isa.name(), e.residual);
        let mut out = vec![f32::NAN; s.out_len()];
        conv.run(&pool, &mut scratch, &input, other, OutputMut::F32(&mut out)).unwrap();
        assert_eq!(out, f32s, "{} {s:?} {:?}", isa.name(), e.residual);
        let mut quantized = vec![0; s.out_len()];
        quantize_f32(&out, e.zero_point, e.lo, e.hi, &mut quantized).unwrap();
        assert_eq!(quantized, u8s, "{} {s:?} quantized after", isa.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_isa_equals_direct_convolution(
        in_h in 1usize..12, in_w in 1usize..12, in_c in 1usize..70, out_c in 1usize..80,
        kernel in prop::array::uniform2(1usize..5), stride in prop::array::uniform2(1usize..4),
        pads in prop::array::uniform4(0usize..4), dilation in prop::array::uniform2(1usize..3), seed: u64,
    ) {
        let s = ConvShape { in_h, in_w, in_c, out_c, kernel, stride, pads, dilation };
        if s.out_len() > 0 {
            check(&s, seed);
        }
    }

    #[test]
    fn every_isa_equals_direct_convolution_on_whole_panels(
        in_h in 1usize..9, in_w in 1usize..9, in_c in 1usize..9, out_c in 1usize..4, kernel in 1usize..4,
        stride in 1usize..3, seed: u64,
    ) {
        let s = ConvShape {
            in_h, in_w, in_c: 16 * in_c, out_c: 64 * out_c, kernel: [kernel; 2], stride: [stride; 2],
            pads: [kernel / 2; 4], dilation: [1, 1],
        };
        if s.out_len() > 0 {
            check(&s, seed);
        }
    }
}

#[test]
fn panels_beyond_the_cache_and_many_taps() {
    check(
        &ConvShape { in_h: 7, in_w: 7, in_c: 512, out_c: 160, kernel: [3, 3], pads: [1; 4], ..ConvShape::default() },
        1,
    );
    let stem = ConvShape {
        in_h: 20,
        in_w: 22,
        in_c: 3,
        out_c: 64,
        kernel: [7, 7],
        stride: [2, 2],
        pads: [3; 4],
        dilation: [1, 1],
    };
    check(&stem, 2);
    check(&ConvShape { in_c: 4, dilation: [2, 2], ..stem }, 3);
    check(&ConvShape { in_h: 1, in_w: 1, in_c: 4096, out_c: 130, ..ConvShape::default() }, 4);
}

#[test]
fn extreme_scales_saturate() {
    let s = ConvShape { in_c: 64, out_c: 64, in_h: 3, in_w: 5, ..ConvShape::default() };
    let weights: Vec<i8> = (0..s.weights_len()).map(|i| if i / 64 % 2 == 0 { 127 } else { -128 }).collect();
    for isa in Isa::available() {
        for scale in [1e30, -1e30, 1e4, f32::MIN_POSITIVE] {
            let e = Epilogue::new(vec![scale; 64], 9, 3, 250);
            let want = reference(&s, &weights, &[0; 64], 0, &e, &[255; 15 * 64], &[]);
            let want: Vec<u8> = want.iter().map(|&v| reference_u8(&e, v)).collect();
            let conv = Conv::new(isa, &s, &weights, &[0; 64], 0, e).unwrap();
            let mut out = vec![0; s.out_len()];
            conv.run(&Pool::new(1), &mut Scratch::default(), &[255; 15 * 64], None, OutputMut::U8(&mut out)).unwrap();
            assert_eq!(out, want, "{} scale {scale}", isa.name());
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let isa = Isa::named("scalar").unwrap();
    let s = ConvShape { in_c: 8, out_c: 4, in_h: 2, in_w: 2, ..ConvShape::default() };
    let e = Epilogue::new(vec![1.0; 4], 0, 0, 255);
    assert!(Conv::new(isa, &s, &[1; 31], &[0; 4], 0, e.clone()).is_err());
    assert!(Conv::new(isa, &ConvShape { kernel: [3, 3], ..s }, &[1; 288], &[0; 4], 0, e.clone()).is_err());
    assert!(Conv::new(isa, &s, &[1; 32], &[0; 4], 0, Epilogue { scale: vec![f32::NAN; 4], ..e.clone() }).is_err());
    let conv = Conv::new(isa, &s, &[1; 32], &[0; 4], 0, e).unwrap();
    let (pool, mut scratch, mut out) = (Pool::new(1), Scratch::default(), vec![0; 16]);
    assert!(conv.run(&pool, &mut scratch, &[0; 31], None, OutputMut::U8(&mut out)).is_err());
    assert!(conv.run(&pool, &mut scratch, &[0; 32], Some(&[0; 16]), OutputMut::U8(&mut out)).is_err());
    assert!(conv.run(&pool, &mut scratch, &[0; 32], None, OutputMut::U8(&mut out[..15])).is_err());
    assert!(conv.run(&pool, &mut scratch, &[0; 32], None, OutputMut::U8(&mut out)).is_ok());
}

#[test]
fn unknown_isa_is_named() {
    let error = Isa::named("mmx").unwrap_err().to_string();
    assert!(error.contains("mmx") && error.contains("scalar"), "{error}");
}

#[test]
fn pool_calls_every_index_once() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let pool = Pool::new(4);
    for n in [0, 1, 2, 3, 17, 1000] {
        for _ in 0..200 {
            let hits: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            pool.run(n, |i| {
                hits[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(5));
    pool.run(8, |_| {});
}

#[test]
fn a_panicking_task_reaches_the_caller() {
    let pool = Pool::new(2);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pool.run(8, |i| assert!(i != 3, "task 3"));
    }));
    assert!(outcome.is_err());
    pool.run(8, |_| {});
}

#[test]
fn max_pool_ignores_padding() {
    max_pool_of_channels(3);
    max_pool_of_channels(128);
    max_pool_of_channels(70);
}

fn max_pool_of_channels(channels: usize) {
    let p = MaxPool { in_h: 5, in_w: 6, channels, kernel: [3, 3], stride: [2, 2], pads: [1, 1, 1, 1] };
    let mut random = Random(5);
    let input = random.bytes(5 * 6 * channels);
    let mut out = vec![0; p.out_h() * p.out_w() * channels];
    p.run(&Pool::new(2), &input, &mut out).unwrap();
    for oy in 0..p.out_h() {
        for ox in 0..p.out_w() {
            for c in 0..channels {
                let ys = (oy * 2).saturating_sub(1)..(oy * 2 + 2).min(5);
                let want = ys
                    .flat_map(|y| ((ox * 2).saturating_sub(1)..(ox * 2 + 2).min(6)).map(move |x| (y, x)))
                    .map(|(y, x)| input[(y * 6 + x) * channels + c])
                    .max();
                assert_eq!(Some(out[(oy * p.out_w() + ox) * channels + c]), want);
            }
        }
    }
}

#[test]
fn tables_follow_the_channel_order() {
    let mut tables = [[0u8; 256]; 3];
    for (i, table) in tables.iter_mut().enumerate() {
        for (x, entry) in table.iter_mut().enumerate() {
            *entry = (x as u8).wrapping_add(10 * i as u8);
        }
    }
    let mut out = [0; 6];
    lut_u8(&[1, 2, 3, 4, 5, 6], &tables, [2, 1, 0], &mut out).unwrap();
    assert_eq!(out, [3, 12, 21, 6, 15, 24]);
    assert!(lut_u8(&[1, 2], &tables, [0, 1, 2], &mut [0; 2]).is_err());
}

#[test]
fn float_pools() {
    let map = [1.0, 10.0, 3.0, -10.0];
    assert_eq!(average_pool_f32(&map, 2), [2.0, 0.0]);
    assert_eq!(max_pool_f32(&map, 2), [3.0, 10.0]);
}
