//! The web page in a headless browser, where one is installed.

use rustix::process::Signal;

use super::page::{FALSE_ALARMS, watched};
use crate::common::browser::{self, Browser};
use crate::common::page::Page;

#[test]
fn the_picture_moves_and_its_layers_are_switched() {
    let Some(program) = browser::find("page live") else { return };
    let (place, daemon) = watched("interval = \"50ms\"", "");
    let page = Page::of(&place);
    let mut browser = Browser::start(&program);
    browser.open(&format!("http://{}/", page.address));
    browser.wait_for("document.getElementById('frame').naturalWidth > 0");
    browser.wait_for("document.getElementById('map').naturalWidth > 0");
    browser
        .value("window.before = [document.getElementById('frame').src, document.getElementById('facts').textContent]");
    browser.wait_for("document.getElementById('frame').src !== before[0]");
    browser.wait_for("document.getElementById('facts').textContent !== before[1]");
    let shown = "getComputedStyle(document.getElementById('map')).display";
    assert_eq!(browser.value(shown), "block");
    browser.click("#show-map");
    assert_eq!(browser.value(shown), "none");
    browser.wait_for("document.querySelector('#state').textContent === 'Normal'");
    browser.wait_for("document.querySelector('#state').textContent.startsWith('Outlier')");
    browser.click("#show-map");
    browser.look("live");
    assert_eq!(browser.complaints, [""; 0]);
    assert_eq!(daemon.stop(Signal::TERM), 0);
    browser.wait_for("document.querySelector('#state').textContent.includes('not running')");
}

#[test]
fn the_slider_counts_and_the_line_is_taken_over() {
    let Some(program) = browser::find("page threshold") else { return };
    let (place, _daemon) = watched("interval = \"5ms\"", FALSE_ALARMS);
    let page = Page::of(&place);
    page.wait_for("/o/threshold", "history", |answer| answer.text().contains("would have raised"));
    let mut browser = Browser::start(&program);
    browser.open(&format!("http://{}/o/threshold", page.address));
    browser.look("threshold");
    let slide =
        "const slider = document.getElementById('slider'); slider.value = 0; slider.dispatchEvent(new Event('input'));";
    browser.value(&format!("{{ {slide} }}"));
    for id in ["chosen", "line"] {
        assert_eq!(browser.value(&format!("document.getElementById('{id}').textContent")), "0.5");
    }
    let row = "document.querySelector('#rungs tr').dataset.events";
    assert_eq!(browser.value("document.getElementById('count').textContent"), browser.value(row));
    // Without the tick nothing is sent.
    browser.click("form[method=post] button");
    assert!(std::fs::read_to_string(place.path("o.toml")).unwrap().contains("threshold = 0.4\n"));
    browser.click("input[name=sure]");
    browser.click("form[method=post] button");
    browser.wait_for("location.pathname === '/o/live'");
    browser.wait_for("document.getElementById('why').textContent.includes('0.5000 (by the config)')");
    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    assert!(config.contains("# mine\nthreshold = 0.5\nraise-after = 1\n"), "{config}");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn an_event_is_marked_as_normal_and_put_back() {
    let Some(program) = browser::find("page events") else { return };
    let (place, daemon) = watched("interval = \"20ms\"", FALSE_ALARMS);
    daemon.wait_for("false alarms", |events| events.len() > 20);
    let page = Page::of(&place);
    let mut browser = Browser::start(&program);
    let events = format!("http://{}/o/events", page.address);
    browser.open(&events);
    browser.wait_for("[...document.querySelectorAll('.card img')].filter((it) => it.naturalWidth > 0).length > 3");
    browser.look("events");
    let count = browser.value("document.querySelectorAll('form[action$=normal]').length").as_u64().unwrap();
    let mut marked = false;
    for at in 0..count {
        // The object is too far to be learnt.
        browser.open(&events);
        browser.value(&format!("document.querySelectorAll('form[action$=normal] button')[{at}].id = 'chosen'"));
        browser.click("#chosen");
        browser.wait_for("!document.getElementById('chosen')");
        browser.wait_for("document.querySelector('.marked') || document.querySelector('.wrong')");
        marked = browser.value("!!document.querySelector('.marked')") == true;
        if marked {
            break;
        }
    }
    assert!(marked, "none of {count} events is learnt");
    browser.wait_for("document.querySelector('.pending').textContent.includes('1 marked as normal')");
    browser.look("events-marked");
    browser.click("form[action$=forget] button");
    browser.wait_for("!document.querySelector('.pending') && document.querySelector('.card')");
    assert_eq!(browser.complaints.iter().filter(|it| !it.contains("422")).count(), 0, "{:?}", browser.complaints);
}
