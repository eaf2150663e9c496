//! Tests of the tables for a pipe.

use serde_json::{Value, json};

use super::super::batch_output;
use super::super::rates::Rates;
use super::{route, snapshot, upstream};

/// JSON has every row under its names. Unknown rates are null, and whole numbers are printed as integers.
#[test]
fn json_has_every_row() {
    let before = snapshot(
        1,
        1_000,
        &json!({ "upstreams": [upstream("10.0.0.1:53", true, 10)] }),
    );
    let upstreams = [
        upstream("10.0.0.1:53", true, 30),
        upstream("10.0.0.2:53", false, 30),
    ];
    let after = snapshot(
        1,
        3_000,
        &json!({ "upstreams": upstreams, "routes": [route("a", 1, 0)] }),
    );
    let text = batch_output::json(&after, &Rates::between(Some(&before), &after));
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&json["elapsed_ms"], &json["state"]),
        (&json!(2_000), &json!("serving"))
    );
    let first = &json["upstreams"][0];
    assert_eq!(
        (&first["handler"], &first["upstream"]),
        (&json!("pool"), &json!("10.0.0.1:53"))
    );
    assert_eq!(
        (&first["sent_per_second"], &first["sessions"]),
        (&json!(10.0), &json!(4))
    );
    assert_eq!(json["upstreams"][1]["sent_per_second"], Value::Null);
    assert_eq!(json["routes"][0]["received_per_second"], Value::Null);
    assert_eq!(json["workers"], json!([]));
}
