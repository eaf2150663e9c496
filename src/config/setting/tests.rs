//! Tests of `config/setting.rs`.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A default is shown in the notation of the file, or in the words of the definition.
#[test]
fn defaults_in_the_notation_of_the_file() {
    const PICK: Setting<u8> = Setting::choice("pick", &[("all", 0), ("random", 1)]).default(1);
    let duration = || Setting::duration("key", SECOND..=SECOND * 60);
    let value = |text: &str| DefaultText::Value(text.to_owned());
    let words = |text: &str| DefaultText::Words(text.to_owned());
    for (shown, expected) in [
        (
            duration().default(SECOND * 60).default_text(),
            value("\"60s\""),
        ),
        (
            duration().capped(SECOND * 5, "idle").default_text(),
            words("\"5s\", or idle if that is less"),
        ),
        (duration().optional("never").default_text(), words("never")),
        (
            duration().optional_as("\"1s\"").default_text(),
            value("\"1s\""),
        ),
        (duration().required().default_text(), DefaultText::Required),
        (
            Setting::size("key", 1..=1 << 30)
                .default(8 << 20)
                .default_text(),
            value("\"8MiB\""),
        ),
        (
            Setting::<u16, _>::integer("key", 1..=9)
                .default(7)
                .default_text(),
            value("7"),
        ),
        (
            Setting::boolean("key").default(true).default_text(),
            value("true"),
        ),
        (PICK.default_text(), value("\"random\"")),
    ] {
        assert_eq!(shown, expected);
    }
}

/// A parser has the bounds of its form.
#[test]
fn parsers_have_the_bounds_of_the_form() {
    const WORDS: [(&str, u8); 2] = [("all", 0), ("random", 1)];
    let integer = Setting::<u8, _>::integer("key", 2..=255).required();
    let size = Setting::size("key", 1024..=2048).required();
    let duration = Setting::duration("key", SECOND..=SECOND * 60).required();
    let or_zero = Setting::duration_or_zero("key", SECOND..=SECOND * 60).required();
    let choice = Setting::choice("key", &WORDS).required();
    let settings: [(&dyn AnySetting, &[&str], &[&str]); 5] = [
        (&integer, &["2", "255"], &["1", "256", "-2", "\"2\""]),
        (&size, &["\"1KiB\"", "2048"], &["1023", "\"2049B\""]),
        (
            &duration,
            &["\"1s\"", "\"60s\""],
            &["\"0s\"", "\"61s\"", "1"],
        ),
        (&or_zero, &["\"0s\"", "\"60s\""], &["\"999ms\"", "\"61s\""]),
        (
            &choice,
            &["\"all\"", "\"random\""],
            &["\"one\"", "1", "1\nb = 2"],
        ),
    ];
    for (setting, good, bad) in settings {
        for text in good {
            assert_eq!(setting.accepts(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(setting.accepts(text).is_err(), "{text}");
        }
    }
}
