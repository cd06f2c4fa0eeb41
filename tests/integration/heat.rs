//! Where the heat map points: on drawn scenes whose object's place is known, and through the daemon.

use crate::common::daemon::{Place, outlierd, text, world};
use image::{Rgb, RgbImage};
use outlierd::internals::backbone::{Backbone, Options, Pooling, Tap};
use outlierd::internals::cli::demo::scene::{HEIGHT, Scene, WIDTH};
use outlierd::internals::image::Resize;
use outlierd::internals::model::FeatureSource;
use outlierd::internals::training::cross::Synthetic;
use outlierd::internals::training::fit;
use outlierd::internals::training::params::DetectorKind;
use outlierd::internals::watch::Judge;
use outlierd::internals::watch::events::{self, Kind};
use outlierd::internals::watch::judge::ModelJudge;
use outlierd::internals::watch::overlay::HeatMap;

const SIDE: u32 = 48;
/// Pixels beside the object that count as on it: untrained weights answer to its edges, and half a cell of the
/// coarsest map is more.
const MARGIN: f64 = 24.0;

/// The hottest cell: left, top, width, height in pixels of the picture.
fn hottest(map: &HeatMap) -> [f64; 4] {
    let (row, column, _) = map.placed.map.hottest().unwrap();
    map.placed.cell(row, column)
}

/// A chequered square that belongs nowhere in the scene.
fn put_object(picture: &mut RgbImage, left: u32, top: u32) {
    for y in 0..SIDE {
        for x in 0..SIDE {
            let colour = if (x / 6 + y / 6) % 2 == 0 { [230, 40, 40] } else { [20, 20, 60] };
            picture.put_pixel(left + x, top + y, Rgb(colour));
        }
    }
}

fn judge(tap: &str, pooling: Pooling, resize: Resize) -> ModelJudge {
    let tap: Tap = tap.parse().unwrap();
    let options =
        Options { tap: Some(tap), pooling: Some(pooling), resize: Some(resize), threads: 1, ..Options::default() };
    let backbone = Backbone::embedded(&options).unwrap();
    let mut scene = Scene::new(1);
    let rows: Vec<Vec<f32>> = (0..80).map(|_| backbone.features(&scene.frame(None)).unwrap()).collect();
    let features = ndarray::Array2::from_shape_vec((80, backbone.n_features()), rows.concat()).unwrap();
    let fitted =
        crate::common::fit_rows(features.view(), None, FeatureSource::of(&backbone), &fit::Options::default()).unwrap();
    ModelJudge::new(fitted.model, backbone, std::path::Path::new("m"))
}

/// How many of a grid of placements inside of what the network sees have the hottest cell on the object. Chance would
/// give 3 to 6 of 20.
fn hits(judge: &mut ModelJudge, seen: [u32; 4]) -> (usize, usize) {
    let mut scene = Scene::new(2);
    let (mut hits, mut all) = (0, 0);
    let [left, top, width, height] = seen;
    for row in 0..4 {
        for column in 0..5 {
            let (x, y) = (left + column * (width - SIDE) / 4, top + row * (height - SIDE) / 3);
            judge.judge(&scene.frame(None), 0.01).unwrap();
            let mut picture = scene.frame(None);
            put_object(&mut picture, x, y);
            let map = judge.heat(&picture).unwrap().unwrap();
            let [cell_x, cell_y, cell_w, cell_h] = hottest(&map);
            let near = |cell: f64, len: f64, object: u32| {
                cell + len >= f64::from(object) - MARGIN && cell <= f64::from(object + SIDE) + MARGIN
            };
            hits += usize::from(near(cell_x, cell_w, x) && near(cell_y, cell_h, y));
            all += 1;
        }
    }
    (hits, all)
}

#[test]
fn the_hottest_cell_lies_on_the_object() {
    let mut missed = Vec::new();
    for (tap, pooling, resize) in [
        ("layer2", Pooling::Avg, Resize::Stretch),
        ("layer2", Pooling::Avg, Resize::Crop),
        ("layer3", Pooling::Avg, Resize::Stretch),
        ("layer3", Pooling::Avg, Resize::Crop),
        ("layer4", Pooling::Avg, Resize::Stretch),
        ("layer2+layer3", Pooling::Avg, Resize::Stretch),
        ("layer3+layer4", Pooling::Avg, Resize::Stretch),
        ("layer3", Pooling::Max, Resize::Stretch),
        ("layer3", Pooling::Max, Resize::Crop),
        ("layer4", Pooling::Max, Resize::Stretch),
        ("layer3+layer4", Pooling::Max, Resize::Stretch),
    ] {
        let mut judge = judge(tap, pooling, resize);
        let seen = match resize {
            Resize::Stretch => [0, 0, WIDTH, HEIGHT],
            Resize::Crop => [56, 16, 208, 208],
        };
        let (hits, all) = hits(&mut judge, seen);
        println!("{tap} {resize:?}: {hits} of {all}");
        if hits * 5 < all * 3 {
            missed.push(format!("{tap} {resize:?}: {hits} of {all}"));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// With cells the region of a raise holds some of the object, and is not all of the picture.
#[test]
fn the_region_lies_on_the_object() {
    let backbone = Backbone::embedded(&Options { threads: 1, cells: true, ..Options::default() }).unwrap();
    let mut scene = Scene::new(1);
    let sample = |picture: &RgbImage| backbone.sample(&backbone.prepare(picture).unwrap()).unwrap();
    let (rows, cells): (Vec<_>, Vec<_>) = (0..80).map(|_| sample(&scene.frame(None))).unzip();
    let rows = ndarray::Array2::from_shape_vec((80, backbone.n_features()), rows.concat()).unwrap();
    let cells: Vec<_> = cells.into_iter().flatten().collect();
    let normal = fit::Samples { rows: rows.view(), cells: &cells };
    let options = fit::Options::with_detector(DetectorKind::PooledCells);
    let fitted = fit::fit(normal, None, &Synthetic::default(), FeatureSource::of(&backbone), &options).unwrap();
    assert!(fitted.model.joined.is_some());
    let mut judge = ModelJudge::new(fitted.model, backbone, std::path::Path::new("m"));
    let mut hits = 0;
    for row in 0..4 {
        for column in 0..5 {
            let (x, y) = (column * (WIDTH - SIDE) / 4, row * (HEIGHT - SIDE) / 3);
            let mut picture = scene.frame(None);
            put_object(&mut picture, x, y);
            assert!(judge.judge(&picture, 0.01).unwrap().outlier, "{x} {y}");
            let [left, top, width, height] = judge.heat(&picture).unwrap().unwrap().region(WIDTH, HEIGHT);
            let share = |at: u32, side: u32| f64::from(at) / f64::from(side);
            let meets = |start: f64, len: f64, at: u32, side: u32| {
                start < share(at + SIDE, side) && start + len > share(at, side)
            };
            hits += usize::from(meets(left, width, x, WIDTH) && meets(top, height, y, HEIGHT));
            assert!(width * height < 0.3, "{x} {y}: {width} x {height}");
        }
    }
    assert_eq!(hits, 20);
}

/// `score --map` draws and tells the region, `eval --masks` measures the places.
#[test]
fn the_command_line_maps_and_measures_places() {
    let dir = tempfile::tempdir().unwrap();
    let [odd, masks, maps] = ["odd", "masks", "maps"].map(|name| dir.path().join(name));
    [&odd, &masks].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let mut scene = Scene::new(3);
    for n in 0..12 {
        let (x, y) = (n % 4 * (WIDTH - SIDE) / 3, n / 4 * (HEIGHT - SIDE) / 2);
        let (mut picture, mut mask) = (scene.frame(None), RgbImage::new(WIDTH, HEIGHT));
        put_object(&mut picture, x, y);
        (0..SIDE * SIDE).for_each(|at| mask.put_pixel(x + at % SIDE, y + at / SIDE, Rgb([255; 3])));
        picture.save(odd.join(format!("o.{n}.png"))).unwrap();
        mask.save(masks.join(format!("o.{n}.png"))).unwrap();
    }
    let run = |arguments: &[&str], paths: &[&std::path::Path]| {
        let output = outlierd().args(arguments).args(paths).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let model = world().join("model.outlierd");
    let model = model.to_str().unwrap();
    let (code, out, err) = run(&["score", "--json", "--model", model, "--map", maps.to_str().unwrap()], &[&odd, &odd]);
    assert_eq!((code, out.lines().count()), (0, 24), "{err}");
    for line in out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let region: Vec<f64> = line["region"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(region.len() == 4 && region[2] > 0.0 && region[0] + region[2] <= 1.0001, "{line}");
    }
    assert_eq!(std::fs::read_dir(&maps).unwrap().count(), 24);
    assert_eq!(outlierd::internals::image::read(&maps.join("o.3-2-map.jpg")).unwrap().dimensions(), (WIDTH, HEIGHT));

    let normal = world().join("normal");
    let eval = ["eval", "--json", "--model", model, "--normal", normal.to_str().unwrap(), "--outliers"];
    let (code, out, err) = run(&eval, &[&odd, std::path::Path::new("--masks"), &masks]);
    assert_eq!(code, 0, "{err}");
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    let pixels = &figures["pixels"];
    assert_eq!((pixels["masks"].as_u64(), pixels["regions"].as_u64()), (Some(12), Some(12)));
    assert!(pixels["auroc"].as_f64().unwrap() > 0.9 && pixels["pro"].as_f64().unwrap() > 0.6, "{pixels}");
    let (code, _, err) = run(&eval, &[&odd, std::path::Path::new("--masks"), &maps]);
    assert!(code == 66 && err.contains("no mask"), "{code} {err}");
}

/// A thing that moves where nobody is to look: with a mask nothing is raised over 1,000 frames, without it there is.
#[test]
fn what_moves_under_a_mask_raises_nothing() {
    let mut place = Place::unconfigured();
    let [normal, frames, late] = ["normal", "frames", "late"].map(|name| place.path(name));
    [&normal, &frames, &late].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let mut scene = Scene::new(5);
    (0..60).for_each(|n| scene.frame(None).save(normal.join(format!("{n}.jpg"))).unwrap());
    for n in 0..1000_u32 {
        let mut picture = scene.frame(None);
        if n % 50 >= 10 {
            put_object(&mut picture, n * 7 % (WIDTH / 4 - SIDE), n * 11 % (HEIGHT - SIDE));
        }
        picture.save(frames.join(format!("{n}.jpg"))).unwrap();
    }
    for n in 0..5 {
        let mut picture = scene.frame(None);
        put_object(&mut picture, WIDTH - 2 * SIDE, HEIGHT / 2);
        picture.save(late.join(format!("{n}.jpg"))).unwrap();
    }
    let mask = "interval = \"1ms\"\n[[camera.mask]]\npolygon = [[0, 0], [0.25, 0], [0.25, 1], [0, 1]]";
    let configure = |place: &mut Place, model: &str, frames: &std::path::Path, camera: &str| {
        (place.model, place.frames) = (place.path(model), frames.to_owned());
        place.configure(camera, "");
    };
    configure(&mut place, "masked", &frames, mask);
    let config = place.path("o.toml");
    let fit = |model: &str, more: &[&str]| {
        let mut command = outlierd();
        command.args(["fit", "--normal"]).arg(&normal).arg("-o").arg(place.path(model)).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    fit("masked", &["--config", config.to_str().unwrap()]);
    fit("open", &[]);

    assert!(place.run(&["run"]).status.success());
    let log = events::read(&place.log).unwrap();
    assert_eq!(place.kinds(), [Kind::Start, Kind::Stop]);
    assert_eq!(log[1].frames, Some(1000));
    configure(&mut place, "masked", &late, mask);
    assert!(place.run(&["run"]).status.success());
    let log = events::read(&place.log).unwrap();
    let raise = log.iter().find(|event| event.event == Kind::Raise).unwrap();
    let snapshot = outlierd::internals::image::read(std::path::Path::new(raise.snapshot.as_ref().unwrap())).unwrap();
    let whole = outlierd::internals::image::read(&late.join("2.jpg")).unwrap();
    let changed = |x: u32| {
        let differ = |y: &u32| snapshot.get_pixel(x, *y).0[0].abs_diff(whole.get_pixel(x, *y).0[0]) > 40;
        (0..HEIGHT).filter(differ).count()
    };
    assert!(changed(20) > 50 && changed(WIDTH / 2) == 0);
    let shown = place.path("shown.png");
    assert!(place.run(&["camera", "snap", "-o", shown.to_str().unwrap()]).status.success());
    let (shown, raw) = (
        outlierd::internals::image::read(&shown).unwrap(),
        outlierd::internals::image::read(&late.join("0.jpg")).unwrap(),
    );
    assert!(
        shown.enumerate_pixels().all(|(x, y, pixel)| x < WIDTH / 4 || pixel == raw.get_pixel(x, y)) && shown != raw
    );

    configure(&mut place, "open", &frames, "interval = \"1ms\"");
    assert!(place.run(&["run"]).status.success());
    assert!(place.kinds().iter().filter(|kind| **kind == Kind::Raise).count() > 5, "{:?}", place.kinds());
    // A model of other masks than the config's is refused by name.
    for (model, camera) in [("masked", "interval = \"1ms\""), ("open", mask)] {
        configure(&mut place, model, &frames, camera);
        for command in ["run", "check"] {
            let output = place.run(&[command]);
            let said = text(&output.stdout) + &text(&output.stderr);
            assert!(output.status.code() == Some(78) && said.contains("fit again with --config"), "{command}: {said}");
        }
    }
}

/// Tiles see finer places: what is small is found as well, and in a smaller region.
#[test]
fn tiles_find_smaller_places() {
    let dir = tempfile::tempdir().unwrap();
    let [normal, odd] = ["normal", "odd"].map(|name| dir.path().join(name));
    [&normal, &odd].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let mut scene = Scene::new(6);
    (0..60).for_each(|n| scene.frame(None).save(normal.join(format!("{n}.png"))).unwrap());
    for n in 0..20 {
        let mut picture = scene.frame(None);
        let (left, top) = (20 + n * 23 % 280, 20 + n * 41 % 190);
        (0..16).for_each(|at| picture.put_pixel(left + at % 4, top + at / 4, Rgb([200, 60, 60])));
        picture.save(odd.join(format!("{n}.png"))).unwrap();
    }
    let run = |arguments: &[&str]| {
        let output = outlierd().args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let areas = ["1", "3"].map(|tiles| {
        run(&["fit", "--normal", "normal", "-o", tiles, "--tiles", tiles]);
        let eval = run(&["eval", "--json", "--model", tiles, "--normal", "normal", "--outliers", "odd"]);
        let eval: serde_json::Value = serde_json::from_str(&eval).unwrap();
        assert!(eval["auroc"].as_f64().unwrap() > 0.98, "{tiles}: {eval}");
        let mut area = 0.0;
        for (n, line) in run(&["score", "--json", "--model", tiles, "--map", "maps", "odd"]).lines().enumerate() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let [left, top, width, height] = [0, 1, 2, 3].map(|at| line["region"][at].as_f64().unwrap());
            let (x, y) =
                ((22 + n * 23 % 280) as f64 / f64::from(WIDTH), (22 + n * 41 % 190) as f64 / f64::from(HEIGHT));
            assert!((left..left + width).contains(&x) && (top..top + height).contains(&y), "{tiles}, {n}: {line}");
            area += width * height;
        }
        area
    });
    assert!(areas[1] < areas[0] / 3.0, "{areas:?}");
    let refused = outlierd().args(["fit", "--normal", "normal", "-o", "x", "--tiles", "5"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
}

/// The maps that a judgement left behind are used for its own picture only.
#[test]
fn a_heat_map_is_the_same_after_the_judgement_as_without_one() {
    let mut judge = judge("layer3", Pooling::Avg, Resize::Crop);
    let mut scene = Scene::new(2);
    let normal = scene.frame(None);
    let [object, other] = [(120, 90), (180, 60)].map(|(x, y)| {
        let mut picture = scene.frame(None);
        put_object(&mut picture, x, y);
        picture
    });
    let threshold = judge.threshold();
    let mut judged = |picture| judge.judge(picture, threshold).unwrap().outlier;
    judged(&normal);
    assert!(judged(&other) && judged(&object));
    let maps = [&object, &other, &object].map(|picture| judge.heat(picture).unwrap().unwrap());
    judge.judge(&normal, threshold).unwrap();
    let wanted = [&object, &other, &object].map(|picture| judge.heat(picture).unwrap().unwrap());
    assert_eq!(maps, wanted);
    assert_ne!(maps[0], maps[1]);
}

/// A config's threshold may be above the model's: what is an outlier by it is nothing to compare with.
#[test]
fn the_reference_of_the_heat_map_is_an_inlier_by_the_threshold_that_holds() {
    let mut judge = judge("layer3", Pooling::Avg, Resize::Stretch);
    let mut scene = Scene::new(3);
    let [normal, raised] = [scene.frame(None), scene.frame(None)];
    assert!(!judge.judge(&normal, 0.0).unwrap().outlier);
    let wanted = judge.heat(&raised).unwrap();
    let verdict = judge.judge(&raised, 1.1).unwrap();
    assert!(verdict.outlier && verdict.p >= judge.threshold(), "{verdict:?}");
    assert_eq!(judge.heat(&raised).unwrap(), wanted);
    assert!(!judge.judge(&raised, 0.0).unwrap().outlier);
    assert_ne!(judge.heat(&raised).unwrap(), wanted);
}

#[test]
fn a_raise_has_a_heat_map_unless_the_config_says_no() {
    let place = Place::new("interval = \"1ms\"", "");
    assert!(place.run(&["run"]).status.success());
    let log = events::read(&place.path("events.jsonl")).unwrap();
    let raise = log.iter().find(|event| event.event == Kind::Raise).unwrap();
    let (snapshot, heat) = (raise.snapshot.as_ref().unwrap(), raise.heat.as_ref().unwrap());
    assert_eq!(heat.to_str().unwrap(), snapshot.to_str().unwrap().replace(".jpg", "-heat.jpg"));
    let (plain, drawn) =
        (outlierd::internals::image::read(snapshot).unwrap(), outlierd::internals::image::read(heat).unwrap());
    assert_eq!(plain.dimensions(), drawn.dimensions());
    let hot = drawn.pixels().filter(|p| i32::from(p[0]) > i32::from(p[1].max(p[2])) + 80).count();
    assert!(hot > 100 && hot < drawn.pixels().len() / 2, "{hot}");
    let clear = log.iter().find(|event| event.event == Kind::Clear).unwrap();
    assert_eq!(clear.heat, raise.heat);

    let place = Place::new("interval = \"1ms\"", "heat-map = false\n");
    assert!(place.run(&["run"]).status.success());
    let log = events::read(&place.path("events.jsonl")).unwrap();
    assert!(log.iter().all(|event| event.heat.is_none()) && log.iter().any(|event| event.snapshot.is_some()));
}

#[test]
fn pooling_that_loses_the_place_gives_no_map_and_no_error() {
    let place = Place::new("interval = \"1ms\"", "");
    let model = place.path("flat.outlierd");
    let fitted = outlierd()
        .args([
            "fit",
            "--detector",
            "mixture+residual",
            "--tap",
            "layer4",
            "--pooling",
            "none",
            "--threads",
            "1",
            "--normal",
        ])
        .arg(world().join("normal"))
        .arg("-o")
        .arg(&model)
        .output()
        .unwrap();
    assert!(fitted.status.success(), "{}", text(&fitted.stderr));
    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    let config = config.replace(&world().join("model.outlierd").display().to_string(), model.to_str().unwrap());
    std::fs::write(place.path("o.toml"), format!("{config}[decision]\nthreshold = 1.0\nraise-after = 1\n")).unwrap();
    assert!(place.run(&["run"]).status.success());
    let log = events::read(&place.path("events.jsonl")).unwrap();
    assert!(log.iter().any(|event| event.event == Kind::Raise));
    assert!(log.iter().all(|event| event.heat.is_none() && event.event != Kind::Error), "{log:#?}");
}

/// A tile with a dark speck: real weights know where it is.
#[test]
fn real_weights_point_at_a_speck() {
    let Some(shared) = crate::common::shared("real_weights_point_at_a_speck") else { return };
    let options = Options {
        tap: Some("layer3".parse().unwrap()),
        input: outlierd::internals::image::InputRecipe::by_name("caffe"),
        threads: 2,
        ..Options::default()
    };
    let backbone = Backbone::load(&shared.join("models/resnet50-conv4-f32.onnx"), &options).unwrap();
    let [train, ..] = crate::common::tile_features(&shared);
    let fitted =
        crate::common::fit_rows(train.view(), None, FeatureSource::of(&backbone), &fit::Options::default()).unwrap();
    let mut judge = ModelJudge::new(fitted.model, backbone, std::path::Path::new("m"));
    let tiles = shared.join("images/magnetic-tiles");
    let list = std::fs::read_to_string(tiles.join("test-normal.txt")).unwrap();
    let (mut hits, mut all) = (0, 0);
    let names: Vec<&str> = list.lines().step_by(8).take(21).collect();
    for pair in names.windows(2) {
        // The map is compared with the latest inlier, here one of another view.
        judge.judge(&outlierd::internals::image::read(&tiles.join(pair[0])).unwrap(), 0.0).unwrap();
        let mut picture = outlierd::internals::image::read(&tiles.join(pair[1])).unwrap();
        let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
        let (column, row) = (f64::from(all % 5) / 4.0, f64::from(all / 5) / 3.0);
        let centre = [(0.2 + 0.6 * column) * width, (0.2 + 0.6 * row) * height];
        let radius = width.min(height) / 20.0;
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            if (f64::from(x) + 0.5 - centre[0]).hypot(f64::from(y) + 0.5 - centre[1]) < radius {
                pixel.0 = pixel.0.map(|value| value / 5);
            }
        }
        let [left, top, cell_width, cell_height] = hottest(&judge.heat(&picture).unwrap().unwrap());
        let near = |start: f64, len: f64, at: f64| (start + len / 2.0 - at).abs() <= len;
        hits += u32::from(near(left, cell_width, centre[0]) && near(top, cell_height, centre[1]));
        all += 1;
    }
    println!("within one cell: {hits} of {all}");
    assert!(hits * 10 >= all * 9, "{hits} of {all}");
}
