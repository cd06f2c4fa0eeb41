//! Home Assistant's discovery message, by its documentation of the MQTT integration.
//!
//! One message for the whole device (`PREFIX/device/ID/config`, Home Assistant 2024.11 or newer), which the documentation
//! recommends where there are several entities: what they share stands there once, and one retained topic is all that
//! there is to take back.

use serde_json::{Map, Value, json};

use crate::config::Mqtt;

/// What `availability` says.
pub const ONLINE: &str = "online";
pub const OFFLINE: &str = "offline";

/// The payload of Home Assistant's birth message.
const BIRTH: &[u8] = b"online";

/// The message, and where it is sent to; None: the config wants none.
pub fn message(config: &Mqtt) -> Option<(String, Value)> {
    let (prefix, node, base) = (&config.discovery_prefix, config.node(), config.base());
    if prefix.is_empty() {
        return None;
    }
    let mut origin = json!({ "name": "outlierd", "sw_version": env!("CARGO_PKG_VERSION") });
    if let Some(url) = Some(env!("CARGO_PKG_REPOSITORY")).filter(|url| !url.is_empty()) {
        origin["support_url"] = url.into();
    }
    let payload = json!({
        "device": {
            "identifiers": [device_id(&node)],
            "name": node,
            "manufacturer": "outlierd",
            "model": "Outlier watch",
            "sw_version": env!("CARGO_PKG_VERSION"),
        },
        "origin": origin,
        "availability": [{
            "topic": format!("{base}/availability"),
            "payload_available": ONLINE,
            "payload_not_available": OFFLINE,
        }],
        "state_topic": format!("{base}/state"),
        "qos": 1,
        "components": components(config),
    });
    Some((format!("{prefix}/device/{}/config", device_id(&node)), payload))
}

/// Topic and payload of the message that Home Assistant sends when it has started; None: the config wants no discovery.
pub fn birth(config: &Mqtt) -> Option<(String, Vec<u8>)> {
    let prefix = &config.discovery_prefix;
    (!prefix.is_empty()).then(|| (format!("{prefix}/status"), BIRTH.into()))
}

fn device_id(node: &str) -> String {
    format!("outlierd_{node}")
}

fn components(config: &Mqtt) -> Value {
    let (node, base) = (config.node(), config.base());
    // The state comes every `interval`. One that stays away although the broker is there is of a daemon that hangs.
    let expire_after = config.interval.as_secs().saturating_mul(3).saturating_add(60);
    let mut components = Map::new();
    let mut add = |platform: &str, name: &str, label: &str, more: Value| {
        let mut component = json!({
            "platform": platform,
            "name": label,
            "unique_id": format!("{}_{name}", device_id(&node)),
            "default_entity_id": format!("{platform}.{node}_{name}"),
        });
        if let (Some(component), Value::Object(more)) = (component.as_object_mut(), more) {
            component.extend(more);
        }
        components.insert(name.to_owned(), component);
    };
    let on_off = |key: &str| format!("{{{{ 'ON' if value_json.{key} else 'OFF' }}}}");
    add(
        "binary_sensor",
        "outlier",
        "Outlier",
        json!({
            "device_class": "problem",
            "value_template": on_off("outlier"),
            "json_attributes_topic": format!("{base}/event"),
            "expire_after": expire_after,
        }),
    );
    add(
        "binary_sensor",
        "camera",
        "Camera",
        json!({
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "value_template": on_off("camera"),
            "expire_after": expire_after,
        }),
    );
    add(
        "binary_sensor",
        "drift",
        "Drift",
        json!({
            "device_class": "problem",
            "entity_category": "diagnostic",
            "value_template": on_off("drift"),
            "expire_after": expire_after,
        }),
    );
    add(
        "sensor",
        "p",
        "p",
        json!({
            "state_class": "measurement",
            "suggested_display_precision": 3,
            "icon": "mdi:gauge",
            "value_template": "{{ value_json.p }}",
            "expire_after": expire_after,
        }),
    );
    add(
        "sensor",
        "threshold",
        "Threshold",
        json!({
            "state_class": "measurement",
            "entity_category": "diagnostic",
            "suggested_display_precision": 4,
            "icon": "mdi:gauge-low",
            "value_template": "{{ value_json.threshold }}",
            "expire_after": expire_after,
        }),
    );
    add(
        "sensor",
        "frames",
        "Frames",
        json!({
            "state_class": "total_increasing",
            "unit_of_measurement": "frames",
            "entity_category": "diagnostic",
            "icon": "mdi:counter",
            "value_template": "{{ value_json.frames }}",
            "expire_after": expire_after,
        }),
    );
    if config.snapshot {
        let image = json!({ "image_topic": format!("{base}/snapshot"), "content_type": "image/jpeg" });
        add("image", "snapshot", "Snapshot", image);
    } else {
        // As documented for one that is no longer there; where it never was it changes nothing.
        components.insert("snapshot".into(), json!({ "platform": "image" }));
    }
    Value::Object(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key, and what its value may be.
    type Key = (&'static str, fn(&Value) -> bool);

    /// The keys of a platform by its documentation, besides [`OF_ALL`].
    struct Documented {
        platform: &'static str,
        /// Besides `platform` and `unique_id`.
        required: &'static [&'static str],
        keys: &'static [Key],
    }

    fn text(value: &Value) -> bool {
        value.as_str().is_some_and(|text| !text.is_empty())
    }
    fn template(value: &Value) -> bool {
        value.as_str().is_some_and(|text| text.starts_with("{{ ") && text.ends_with(" }}"))
    }
    fn topic(value: &Value) -> bool {
        value.as_str().is_some_and(|text| text.starts_with("home/door/") && !text.contains(['+', '#']))
    }
    fn count(value: &Value) -> bool {
        value.as_u64().is_some_and(|number| number > 0)
    }
    fn icon(value: &Value) -> bool {
        value.as_str().is_some_and(|text| text.starts_with("mdi:"))
    }
    fn diagnostic(value: &Value) -> bool {
        value == "diagnostic"
    }
    fn binary_class(value: &Value) -> bool {
        // Of 28 those that could be meant.
        ["connectivity", "problem", "running", "safety", "tamper"].iter().any(|class| value == class)
    }
    fn state_class(value: &Value) -> bool {
        ["measurement", "measurement_angle", "total", "total_increasing"].iter().any(|class| value == class)
    }
    fn image_type(value: &Value) -> bool {
        value == "image/jpeg"
    }

    /// The keys that every platform has.
    const OF_ALL: &[Key] = &[("platform", text), ("name", text), ("unique_id", text), ("default_entity_id", text)];

    /// home-assistant.io/integrations/binary_sensor.mqtt, sensor.mqtt and image.mqtt: configuration variables. `state_topic`
    /// is required too, and shared. A sensor without a device class may have any unit.
    const DOCUMENTED: &[Documented] = &[
        Documented {
            platform: "binary_sensor",
            required: &["value_template"],
            keys: &[
                ("device_class", binary_class),
                ("entity_category", diagnostic),
                ("expire_after", count),
                ("icon", icon),
                ("json_attributes_topic", topic),
                ("value_template", template),
            ],
        },
        Documented {
            platform: "sensor",
            required: &["value_template"],
            keys: &[
                ("entity_category", diagnostic),
                ("expire_after", count),
                ("icon", icon),
                ("state_class", state_class),
                ("suggested_display_precision", count),
                ("unit_of_measurement", text),
                ("value_template", template),
            ],
        },
        Documented {
            platform: "image",
            required: &["image_topic"],
            keys: &[("content_type", image_type), ("image_topic", topic)],
        },
    ];

    fn config(snapshot: bool) -> Mqtt {
        let (node_id, base_topic) = (Some("door".into()), Some("home/door".into()));
        Mqtt { node_id, base_topic, snapshot, ..Mqtt::default() }
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn every_key_is_documented_and_no_required_one_missing() {
        let (at, message) = message(&config(true)).unwrap();
        assert_eq!(at, "homeassistant/device/outlierd_door/config");
        // "Device discovery payload"; of `device` and `origin` all that is sent.
        assert_eq!(keys(&message), ["availability", "components", "device", "origin", "qos", "state_topic"]);
        assert_eq!(keys(&message["device"]), ["identifiers", "manufacturer", "model", "name", "sw_version"]);
        assert!(["name", "sw_version"].iter().all(|key| text(&message["origin"][key])));
        assert!(keys(&message["origin"]).iter().all(|key| ["name", "support_url", "sw_version"].contains(key)));
        assert_eq!(message["device"]["identifiers"], json!(["outlierd_door"]));
        assert_eq!((&message["qos"], topic(&message["state_topic"])), (&json!(1), true));
        let availability = message["availability"].as_array().unwrap();
        assert!(availability.iter().all(|one| topic(&one["topic"]) && one["payload_available"] == "online"));

        let components = message["components"].as_object().unwrap();
        for (name, component) in components {
            let of = DOCUMENTED.iter().find(|of| component["platform"] == of.platform).unwrap();
            for (key, value) in component.as_object().unwrap() {
                let documented = OF_ALL.iter().chain(of.keys).find(|(known, _)| known == key);
                assert!(documented.is_some_and(|(_, is_valid)| is_valid(value)), "{name}: {key} = {value}");
            }
            let mut required = ["platform", "unique_id"].iter().chain(of.required);
            assert!(required.all(|key| component.get(key).is_some()), "{name}");
            assert_eq!(component["unique_id"], format!("outlierd_door_{name}"));
            assert_eq!(component["default_entity_id"], format!("{}.door_{name}", of.platform));
        }
        let classes = ["outlier", "camera", "drift"].map(|name| components[name]["device_class"].as_str().unwrap());
        assert_eq!(classes, ["problem", "connectivity", "problem"]);
        assert_eq!(components["frames"]["state_class"], "total_increasing");
        assert_eq!(components["outlier"]["expire_after"], 90);
        assert_eq!(
            keys(&message["components"]),
            ["camera", "drift", "frames", "outlier", "p", "snapshot", "threshold"]
        );
    }

    #[test]
    fn a_snapshot_that_is_not_sent_is_taken_back() {
        let (_, message) = message(&config(false)).unwrap();
        assert_eq!(message["components"]["snapshot"], json!({ "platform": "image" }));
    }

    #[test]
    fn two_cameras_are_two_devices_that_share_nothing() {
        let other = Mqtt { node_id: Some("gate".into()), base_topic: Some("home/gate".into()), ..config(true) };
        let [(one_at, one), (two_at, two)] = [config(true), other].map(|config| message(&config).unwrap());
        assert_ne!(one_at, two_at);
        let ids = |message: &Value| {
            let components = message["components"].as_object().unwrap().values();
            let mut ids: Vec<String> = components.map(|component| component["unique_id"].to_string()).collect();
            ids.push(message["device"]["identifiers"].to_string());
            ids
        };
        assert!(ids(&one).iter().all(|id| !ids(&two).contains(id)));
        assert!(!two.to_string().contains("door") && !one.to_string().contains("gate\""));
    }

    #[test]
    fn without_a_prefix_nothing_is_announced_and_nothing_subscribed_to() {
        let config = Mqtt { discovery_prefix: String::new(), ..config(true) };
        assert!(message(&config).is_none() && birth(&config).is_none());
        assert_eq!(birth(&Mqtt::default()).unwrap().0, "homeassistant/status");
    }
}
