//! Changes the crop and the masks of a config file, and leaves all else of it as it is.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::edit::{Error, change, with_key};
use super::{Config, Crop};
use crate::image::mask::Mask;

const HEADER: &str = "[[camera.mask]]";

/// Sets `camera.crop`, None: to all of the frame, and all `[[camera.mask]]`, in one replacement. The rest of the config
/// may be unfinished.
///
/// # Errors
/// The file cannot be read or written, is no good config then, or holds masks otherwise than as `[[camera.mask]]`.
pub fn set_region(path: &Path, crop: Option<Crop>, mask: &Mask) -> Result<(), Error> {
    change(path, |text| with_masks(&with_crop(text, crop)?, mask), Config::check_camera)
}

/// The lines of the masks, a section each.
pub fn mask_lines(mask: &Mask) -> String {
    mask.polygons().iter().map(|polygon| format!("{HEADER}\npolygon = {polygon:?}\n")).collect()
}

fn with_crop(text: &str, crop: Option<Crop>) -> Result<String, String> {
    if let Some(crop) = crop {
        return with_key(text, "camera", "crop", &crop.to_string());
    }
    let found = match camera(text)?.as_ref().and_then(|camera| camera.get("crop")) {
        Some(crop) => lines_around(text, crop.span()),
        None => return Ok(text.to_owned()),
    };
    let new = [&text[..found.start], &text[found.end..]].concat();
    same_but(text, new, "crop", None)
}

fn with_masks(text: &str, mask: &Mask) -> Result<String, String> {
    let mut polygons = Vec::new();
    if let Some(masks) = camera(text)?.as_ref().and_then(|camera| camera.get("mask"))
        && let DeValue::Array(masks) = masks.get_ref()
    {
        polygons =
            masks.iter().filter_map(|one| one.get_ref().as_table()?.get("polygon").map(|it| it.span())).collect();
    }
    let is_header = |line: &&str| line.split('#').next().is_some_and(|line| line.trim() == HEADER);
    let headers =
        text.split_inclusive('\n').filter(is_header).map(|line| line.as_ptr() as usize - text.as_ptr() as usize);
    let mut new = text.to_owned();
    let mut place = None;
    // From the last on, so that the places of those before stay.
    let found: Vec<(usize, Range<usize>)> = headers.zip(polygons).collect();
    for (header, polygon) in found.into_iter().rev() {
        new.replace_range(lines_around(text, polygon), "");
        new.replace_range(lines_around(text, header..header + 1), "");
        place = Some(header);
    }
    let lines = mask_lines(mask);
    match place {
        Some(place) => new.insert_str(place, &lines),
        None if lines.is_empty() => {}
        None => {
            let before = if new.is_empty() || new.ends_with('\n') { "" } else { "\n" };
            new.push_str(&format!("{before}\n{lines}"));
        }
    }
    let wanted = format!("value = [{}]", polygon_tables(mask)).parse::<toml::Table>().map_err(|e| e.to_string())?;
    let wanted = wanted.get("value").filter(|_| !mask.is_empty()).cloned();
    same_but(text, new, "mask", wanted)
}

fn polygon_tables(mask: &Mask) -> String {
    let tables: Vec<String> = mask.polygons().iter().map(|polygon| format!("{{ polygon = {polygon:?} }}")).collect();
    tables.join(", ")
}

fn camera(text: &str) -> Result<Option<DeTable<'_>>, String> {
    let table = DeTable::parse(text).map_err(|e| e.message().trim().to_owned())?;
    let camera = table.into_inner().remove("camera").map(|camera| camera.into_inner());
    Ok(match camera {
        Some(DeValue::Table(camera)) => Some(camera),
        _ => None,
    })
}

/// Whole lines.
fn lines_around(text: &str, part: Range<usize>) -> Range<usize> {
    let start = text[..part.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[part.end..].find('\n').map_or(text.len(), |at| part.end + at + 1);
    start..end
}

/// The new text, if it is the old one with another value of one key of `[camera]`.
fn same_but(old: &str, new: String, key: &str, value: Option<toml::Value>) -> Result<String, String> {
    let parse = |text: &str| {
        let mut table = text.parse::<toml::Table>().map_err(|e| e.message().trim().to_owned())?;
        table.entry("camera").or_insert_with(|| toml::Table::new().into());
        Ok::<_, String>(table)
    };
    let mut wanted = parse(old)?;
    if let Some(camera) = wanted.get_mut("camera").and_then(toml::Value::as_table_mut) {
        match value {
            Some(value) => drop(camera.insert(key.to_owned(), value)),
            None => drop(camera.remove(key)),
        }
    }
    match parse(&new) {
        Ok(found) if found == wanted => Ok(new),
        _ => Err(format!("it has the {key} of [camera] in an unusual form: change it by hand")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(polygons: &[[[f64; 2]; 3]]) -> Mask {
        Mask::new(polygons.iter().map(|polygon| polygon.to_vec()).collect()).unwrap()
    }

    #[test]
    fn masks_and_crop_are_replaced_and_all_else_stays() {
        let one = mask(&[[[0.0, 0.0], [1.0, 0.0], [0.5, 0.25]]]);
        let line = "[[camera.mask]]\npolygon = [[0.0, 0.0], [1.0, 0.0], [0.5, 0.25]]\n";
        let old = "[camera]\n# why\ncrop = [0, 0, 8, 8] # mine\nloop = true\n\n[[camera.mask]] # a tree\n# it moves\n\
                   polygon = [\n  [0.0, 0.0], # left\n  [1.0, 1.0], [0.0, 1.0],\n]\n# b\n[[camera.mask]]\n\
                   polygon=[[0.5,0.5],[1,1],[0,1]]\n\n[model]\npath = \"m\"";
        let new = with_masks(&with_crop(old, None).unwrap(), &one).unwrap();
        let wanted = format!("[camera]\n# why\nloop = true\n\n{line}# it moves\n# b\n\n[model]\npath = \"m\"");
        assert_eq!(new, wanted);
        assert_eq!(with_masks(&new, &Mask::default()).unwrap(), wanted.replace(line, ""));
        let crop = "0.25, 0.0, 0.5, 1.0".parse().unwrap();
        assert!(with_crop(old, Some(crop)).unwrap().contains("crop = [0.25, 0.0, 0.5, 1.0] # mine\n"));
        assert_eq!(with_masks("[model]\npath = \"m\"", &one).unwrap(), format!("[model]\npath = \"m\"\n\n{line}"));
        assert_eq!(with_crop("[model]\n", None).unwrap(), "[model]\n");
    }

    #[test]
    fn what_is_written_otherwise_is_left() {
        let one = mask(&[[[0.0, 0.0], [1.0, 0.0], [0.5, 0.25]]]);
        for text in [
            "[camera]\nmask = [{ polygon = [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]] }]\n",
            "camera = {}\n",
            "[camera]\nx = \"\"\"\n[[camera.mask]]\n\"\"\"\n[[camera.mask]]\npolygon = [[0, 0], [1, 1], [0, 1]]\n",
            "[camera",
        ] {
            assert!(with_masks(text, &one).is_err(), "{text}");
        }
        assert!(with_crop("camera = { crop = [0, 0, 1, 1], loop = true }\n", None).is_err());
    }

    #[test]
    fn an_unfinished_config_is_changed_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door.toml");
        std::fs::write(&path, "[camera]\nsource = \"folder:/x\"\n").unwrap();
        let one = mask(&[[[0.0, 0.0], [1.0, 0.0], [0.5, 0.25]]]);
        set_region(&path, Some(Crop::Pixels([0, 0, 4, 4])), &one).unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!((config.camera.crop, &config.camera.mask), (Some(Crop::Pixels([0, 0, 4, 4])), &one));
        set_region(&path, None, &Mask::default()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[camera]\nsource = \"folder:/x\"\n\n");
    }
}
