use std::path::Path;

use super::decoder::{DHT, EOI, SOS};
use super::*;

fn encoded(width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| ::image::Rgb([x as u8 * 4, y as u8 * 4, 90]));
    encode(&picture, 90).unwrap()
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the walk through all of a JPEG finds.
fn walked(bytes: &[u8]) -> Result<usize, Error> {
    Walk::begin(bytes, |_, _| true)?.finish()
}

fn decoded(bytes: &[u8]) -> Result<RgbImage, Error> {
    decode(bytes, |_, _| true)
}

/// Takes the Huffman tables out, as webcams do.
fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let (mut stripped, mut at) = (jpeg[..2].to_vec(), 2);
    while jpeg[at + 1] != SOS {
        let len = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] != DHT {
            stripped.extend_from_slice(&jpeg[at..at + len]);
        }
        at += len;
    }
    stripped.extend_from_slice(&jpeg[at..]);
    stripped
}

#[test]
fn missing_tables_are_supplied_and_what_lies_behind_the_end_is_not_looked_at() {
    let whole = encoded(48, 32);
    let expected = decoded(&whole).unwrap();
    let stripped = without_tables(&whole);
    assert!(stripped.len() + 400 < whole.len());
    for bytes in [&whole, &stripped] {
        assert_eq!(decoded(bytes).unwrap(), expected);
        for behind in [&[0; 100][..], &[0x5A; 33], &[0xFF, 0xFF, 0xD8], &encoded(16, 16)] {
            assert_eq!(decoded(&[bytes, behind].concat()).unwrap(), expected, "{behind:?}");
        }
    }
}

#[test]
fn a_jpeg_is_completed_for_programs_that_need_its_tables() {
    let whole = encoded(48, 32);
    let (size, same) = complete(&whole).unwrap();
    assert_eq!((size, &*same), ([48, 32], whole.as_slice()));
    let padded = [without_tables(&whole), vec![0; 100]].concat();
    let (size, completed) = complete(&padded).unwrap();
    assert_eq!(size, [48, 32]);
    assert!(completed.ends_with(&[0xFF, EOI]));
    assert_eq!(pixels(ZCursor::new(&*completed)).unwrap(), decoded(&whole).unwrap());
    assert!(complete(&whole[..whole.len() / 2]).is_err());
}

#[test]
fn a_thumbnail_s_end_is_not_the_picture_s() {
    let (whole, thumbnail) = (encoded(48, 32), encoded(16, 16));
    let mut segment = vec![0xFF, 0xE1];
    segment.extend_from_slice(&(thumbnail.len() as u16 + 2).to_be_bytes());
    segment.extend_from_slice(&thumbnail);
    let with_thumbnail = [&whole[..2], &segment, &whole[2..]].concat();
    assert_eq!(decoded(&with_thumbnail).unwrap(), decoded(&whole).unwrap());
}

#[test]
fn every_cut_is_refused() {
    let whole = encoded(48, 32);
    for cut in 0..whole.len() - 1 {
        assert!(decoded(&whole[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(decoded(b"text, really"), Err(Error::NoStart));
    // The next frame began before this one's end.
    let overtaken = [&whole[..whole.len() - 20], &whole[..]].concat();
    assert!(decoded(&overtaken).is_err());
}

const WHOLE: [&str; 14] = [
    "444",
    "422",
    "420",
    "444-restart",
    "422-restart",
    "420-restart",
    "444-progressive",
    "422-progressive",
    "420-progressive",
    "444-progressive-restart",
    "422-progressive-restart",
    "420-progressive-restart",
    "grey",
    "grey-progressive",
];

#[test]
fn layouts_are_decoded_as_libjpeg_does_or_refused_by_name() {
    for sampling in ["444", "422", "420"] {
        let png = ::image::load_from_memory(&fixture(&format!("{sampling}.png"))).unwrap().into_rgb8();
        let plain = decoded(&fixture(&format!("{sampling}.jpg"))).unwrap();
        let differ: u32 = plain.iter().zip(png.iter()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        assert!(f64::from(differ) / (plain.len() as f64) < 0.5, "{sampling} differs by {differ} in all");
        let same = WHOLE.iter().filter(|name| name.starts_with(sampling));
        for name in same.chain(["444-scans"].iter().filter(|name| name.starts_with(sampling))) {
            assert_eq!(decoded(&fixture(&format!("{name}.jpg"))).unwrap(), plain, "{name}");
        }
    }
    let refused = |name: &str, part: &str| match decoded(&fixture(&format!("{name}.jpg"))) {
        Err(Error::Layout(reason)) => assert!(reason.contains(part), "{name}: {reason}"),
        other => panic!("{name}: {other:?}"),
    };
    refused("420-scans", "scans of their own");
    refused("420-scans-restart", "scans of their own");
    refused("444-scans-restart", "scans of their own");
    refused("fine-chroma", "chroma is finer");
    refused("fine-chroma-progressive", "chroma is finer");
    refused("arithmetic", "arithmetically");
}

#[test]
fn a_cut_anywhere_is_refused_with_and_without_an_end() {
    for name in WHOLE {
        let whole = fixture(&format!("{name}.jpg"));
        assert_eq!(walked(&whole), Ok(whole.len()), "{name}");
        for cut in 2..whole.len() - 2 {
            assert!(decoded(&whole[..cut]).is_err(), "{name} cut at {cut}");
            let ended = [&whole[..cut], &[0xFF, EOI]].concat();
            // The last block may lose a bit or two that only fill up the byte.
            let filled = cut + 3 >= whole.len() && walked(&ended).is_ok();
            assert!(decoded(&ended).is_err() || filled, "{name} cut at {cut} and ended");
        }
    }
}

/// The first byte of the first scan's data.
fn data(jpeg: &[u8]) -> usize {
    let walk = Walk::begin(jpeg, |_, _| true).unwrap();
    walk.header() + 2 + usize::from(u16::from_be_bytes([jpeg[walk.header() + 2], jpeg[walk.header() + 3]]))
}

#[test]
fn lost_bytes_are_refused_where_the_blocks_do_not_come_out() {
    let (mut lost, mut valid, mut missed) = (0, 0, 0);
    for name in WHOLE {
        let whole = fixture(&format!("{name}.jpg"));
        for count in [1, 2, 3, 5, 17, 60, 200] {
            for at in (data(&whole)..whole.len() - 2 - count).step_by(5) {
                let damaged = [&whole[..at], &whole[at + count..]].concat();
                let (walked, decoded) = (walked(&damaged), decoded(&damaged));
                lost += 1;
                valid += usize::from(walked.is_ok());
                missed += usize::from(walked.is_err() && decoded.is_ok());
            }
        }
    }
    println!("of {lost} pictures with lost bytes {valid} have all blocks, {missed} others were decoded");
    // Values that overflow their block pass where all blocks are there, and up to three bytes too many.
    assert!(lost > 10_000 && valid < lost / 3 && missed < lost / 50, "{lost} {valid} {missed}");
}

#[test]
fn restart_markers_that_are_lost_or_out_of_order_are_refused() {
    for name in WHOLE.iter().filter(|name| name.ends_with("restart")) {
        let whole = fixture(&format!("{name}.jpg"));
        let is_restart = |at: &usize| whole[*at] == 0xFF && (0xD0..=0xD7).contains(&whole[at + 1]);
        let markers: Vec<usize> = (data(&whole)..whole.len() - 1).filter(is_restart).collect();
        assert!(markers.len() >= 3, "{name}");
        for (place, at) in markers.iter().enumerate() {
            let mut other = whole.clone();
            other[at + 1] = 0xD0 + (other[at + 1] - 0xD0 + 1) % 8;
            assert!(matches!(decoded(&other), Err(Error::Damaged(_))), "{name} at {at}");
            let without = [&whole[..*at], &whole[at + 2..]].concat();
            assert!(decoded(&without).is_err(), "{name} without the marker at {at}");
            // A whole part of the scan is lost.
            if let Some(next) = markers.get(place + 1) {
                assert!(decoded(&[&whole[..*at], &whole[*next..]].concat()).is_err(), "{name} without {at} to {next}");
            }
        }
    }
}

#[test]
fn fill_before_the_end_is_no_damage_and_other_bytes_are() {
    for name in ["420", "grey", "444-restart", "420-progressive"] {
        let whole = fixture(&format!("{name}.jpg"));
        let (data, end) = whole.split_at(whole.len() - 2);
        let expected = decoded(&whole).unwrap();
        for fill in [&[0; 1][..], &[0; 11], &[0xFF; 3], &[0xFF, 0, 0xFF, 0]] {
            assert_eq!(decoded(&[data, fill, end].concat()), Ok(expected.clone()), "{name} {fill:?}");
        }
        for extra in [&[1, 2, 3, 4, 5, 6, 7, 8][..], &[0; 100]] {
            assert!(matches!(decoded(&[data, extra, end].concat()), Err(Error::Damaged(_))), "{name} {extra:?}");
        }
    }
}

/// Some webcams leave a few bytes there.
#[test]
fn stray_bytes_before_restart_markers_are_skipped() {
    for name in ["420-restart", "422-restart", "444-restart"] {
        let whole = fixture(&format!("{name}.jpg"));
        let expected = decoded(&whole).unwrap();
        let is_restart = |at: &usize| whole[*at] == 0xFF && (0xD0..=0xD7).contains(&whole[at + 1]);
        let markers: Vec<usize> = (data(&whole)..whole.len() - 1).filter(is_restart).collect();
        for at in markers {
            for stray in [&[0x12][..], &[0, 0x55], &[0xA3, 7, 0x3C, 9, 0x80, 1]] {
                let frame = [&whole[..at], stray, &whole[at..]].concat();
                assert_eq!(decoded(&frame), Ok(expected.clone()), "{name} at {at}: {stray:?}");
            }
            let many = [&whole[..at], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], &whole[at..]].concat();
            assert!(decoded(&many).is_err(), "{name} at {at}");
        }
    }
}

#[test]
fn a_progressive_picture_without_its_last_scans_is_refused() {
    let whole = fixture("420-progressive.jpg");
    let scans = (2..whole.len() - 1).filter(|at| whole[*at..].starts_with(&[0xFF, SOS])).skip(1);
    for at in scans {
        let ended = [&whole[..at], &[0xFF, EOI]].concat();
        assert_eq!(decoded(&ended), Err(Error::damaged("its last scans are missing")));
    }
}
