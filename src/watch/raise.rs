//! The pictures of a raise, and the order in which they and the event are given out.

use ::image::RgbImage;

use super::events::{Event, Pictures};
use super::judging::{Drawing, Judge};
use super::outputs::Outputs;
use super::overlay::HeatMap;

/// Pictures of the frame that raised an event.
pub struct Raised<'a> {
    /// As the judge sees it.
    pub masked: &'a RgbImage,
    /// As people see it: masks are hatched.
    pub hatched: &'a RgbImage,
}

/// Writes the line of a raise with the names that its pictures will have, then the pictures, and announces it then. `judge`
/// draws the heat map; None: there is none.
pub fn raise(outputs: &mut Outputs, event: Event, frame: &Raised<'_>, mut judge: Option<&mut dyn Judge>) -> Pictures {
    let id = event.id.clone().unwrap_or_default();
    let drawing = judge.as_ref().map_or(Drawing::Never, |judge| judge.drawing());
    let mut map = match &mut judge {
        Some(judge) if drawing == Drawing::AtOnce => heat_map(outputs, &mut **judge, frame.masked),
        _ => None,
    };
    let (width, height) = frame.hatched.dimensions();
    let region = |map: &HeatMap| map.region(width, height);
    let (snapshot, heat) = outputs.picture_paths(&id);
    let named = Pictures {
        snapshot: Some(snapshot),
        heat: (map.is_some() || drawing == Drawing::Later).then_some(heat),
        region: map.as_ref().map(region),
        clip: outputs.clip_path(&id),
    };
    let event = outputs.write(event.with_pictures(named));
    let snapshot = outputs.snapshot(&id, frame.hatched);
    if let Some(judge) = judge.filter(|_| drawing == Drawing::Later) {
        map = heat_map(outputs, judge, frame.masked);
    }
    let drawn = map.as_ref().filter(|_| snapshot.is_some()).map(|map| map.draw(frame.hatched));
    let heat = drawn.and_then(|drawn| outputs.heat(&id, &drawn));
    let pictures = Pictures { snapshot, heat, region: map.as_ref().map(region), clip: outputs.clip(&id) };
    outputs.announce(&event.with_pictures(pictures.clone()));
    pictures
}

/// The heat map of a picture; a failure is an error event.
fn heat_map(outputs: &mut Outputs, judge: &mut dyn Judge, masked: &RgbImage) -> Option<HeatMap> {
    judge.heat(masked).map_err(|e| outputs.error(format!("no heat map: {e}"))).ok().flatten()
}
