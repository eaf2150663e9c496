//! Headless Chromium, driven by WebDriver (W3C) through Debian's chromedriver: plain HTTP requests with JSON, without a
//! library. Each browser has a temporary profile, and every wait has a limit.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{Lazy, TIMEOUT, eventually};

/// The port of chromedriver. Each test has a network of its own.
const PORT: u16 = 9515;

/// Longest wait for a response of chromedriver, which starts Chromium for the first one. On a busy machine that has taken
/// more than [`TIMEOUT`].
const RESPONSE_MAX: Duration = TIMEOUT.saturating_mul(4);

/// The width and height of a desktop's window, in CSS pixels.
pub const DESKTOP: (u32, u32) = (1440, 900);
/// The width and height of a phone's screen, in CSS pixels.
pub const PHONE: (u32, u32) = (360, 740);

/// A browser with one window.
pub struct Browser {
    driver: Child,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with an empty profile.
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let driver = Command::new("chromedriver")
            .arg(format!("--port={PORT}"))
            .env("HOME", profile.path())
            .env("XDG_CONFIG_HOME", profile.path())
            .env("XDG_CACHE_HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut browser = Browser {
            driver,
            session: String::new(),
            _profile: profile,
        };
        eventually("chromedriver listens", || {
            TcpStream::connect(("127.0.0.1", PORT)).is_ok()
        });
        // Each test's namespace maps the caller to root, for whom Chromium has no sandbox.
        let directory = format!(
            "--user-data-dir={}",
            browser._profile.path().join("profile").display()
        );
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            &directory,
        ];
        let capabilities = json!({
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        });
        let created = request(
            "POST",
            "/session",
            &json!({ "capabilities": { "alwaysMatch": capabilities } }),
        );
        browser.session = created["sessionId"].as_str().expect("a session").to_owned();
        // Discards what the browser's own first page logged and requested.
        browser.open("about:blank");
        browser.complaints();
        browser.requests();
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        request(method, &format!("/session/{}{path}", self.session), body)
    }

    fn execute(&self, command: &str, parameters: Value) -> Value {
        self.ask(
            "POST",
            "/goog/cdp/execute",
            &json!({ "cmd": command, "params": parameters }),
        )
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    /// Runs a function's body and returns its result.
    pub fn run(&self, script: &str) -> Value {
        self.ask(
            "POST",
            "/execute/sync",
            &json!({ "script": script, "args": [] }),
        )
    }

    /// Runs a function's body and returns its result as text, which is empty for null.
    pub fn text(&self, script: &str) -> String {
        match self.run(script) {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        }
    }

    /// Waits until an expression is true.
    pub fn wait(&self, expression: &str) {
        eventually(expression, || {
            if self.run(&format!("return Boolean({expression})")) == json!(true) {
                return Ok(());
            }
            Err(Lazy(|| {
                let page = self.text("return document.body.innerText");
                format!("{page}\n{:#?}", self.complaints())
            }))
        });
    }

    /// Presses the mouse's button on the first element that the selector finds.
    pub fn click(&self, selector: &str) {
        let using = json!({ "using": "css selector", "value": selector });
        let found = self.ask("POST", "/element", &using);
        let id = found
            .as_object()
            .and_then(|found| found.values().next()?.as_str())
            .expect("an element");
        self.ask("POST", &format!("/element/{id}/click"), &json!({}));
    }

    /// Presses a key, in the notation of WebDriver.
    pub fn press(&self, key: char) {
        let key = key.to_string();
        let presses =
            json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": presses });
        self.ask("POST", "/actions", &json!({ "actions": [keyboard] }));
    }

    /// Sets the size of the window, and the colour scheme of the system, `light` or `dark`.
    pub fn show_as(&self, (width, height): (u32, u32), colours: &str) {
        let is_phone = width < 600;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.execute("Emulation.setDeviceMetricsOverride", metrics);
        let feature = json!({ "name": "prefers-color-scheme", "value": colours });
        self.execute(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        );
    }

    /// Saves a picture of the whole page as `target/artifacts/NAME.png`.
    pub fn keep_picture(&self, name: &str) {
        let picture = self.execute(
            "Page.captureScreenshot",
            json!({ "captureBeyondViewport": true }),
        );
        let bytes = BASE64_STANDARD
            .decode(picture["data"].as_str().expect("a picture"))
            .expect("base64");
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/artifacts");
        std::fs::create_dir_all(&folder).expect("a folder for artifacts");
        // The file is replaced in one step, because another run of the tests may write the same picture now.
        let file = tempfile::NamedTempFile::new_in(&folder).expect("a file");
        std::fs::write(&file, bytes).expect("the picture is written");
        file.persist(folder.join(format!("{name}.png")))
            .expect("the picture has its name");
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.ask("POST", "/se/log", &json!({ "type": kind }));
        entries.as_array().expect("a list").clone()
    }

    /// The messages of the console since the last call: errors, warnings, and what the page's content security policy
    /// refused.
    pub fn complaints(&self) -> Vec<String> {
        self.log("browser")
            .iter()
            .map(|entry| format!("{} {}", entry["level"], entry["message"]))
            .collect()
    }

    /// The URLs of all requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        let message =
            |entry: &Value| serde_json::from_str::<Value>(entry["message"].as_str()?).ok();
        let events = self.log("performance");
        let events = events
            .iter()
            .filter_map(message)
            .map(|mut event| event["message"].take());
        let sent = events.filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| Some(event["params"]["request"]["url"].as_str()?.to_owned()))
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of the session ends Chromium. If the request fails, killing chromedriver has to do.
        if !self.session.is_empty() {
            let _ = exchange(
                "DELETE",
                &format!("/session/{}", self.session),
                &Value::Null,
            );
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn request(method: &str, path: &str, body: &Value) -> Value {
    let (status, mut answer) = exchange(method, path, body)
        .unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"));
    assert!(
        status.contains(" 200 "),
        "{method} {path} {body}: {status} {answer:#}"
    );
    answer["value"].take()
}

/// Sends one HTTP/1.1 request on a connection of its own. Returns the status line and the body of the response.
fn exchange(method: &str, path: &str, body: &Value) -> std::io::Result<(String, Value)> {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_read_timeout(Some(RESPONSE_MAX))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\nContent-Type: application/json\r\n"
    )?;
    write!(
        stream,
        "Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, content)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")?
                    .trim()
                    .parse()
                    .ok()
            });
            if length.is_some_and(|length: usize| content.len() >= length) {
                let status = head.lines().next().unwrap_or_default().to_owned();
                return Ok((status, serde_json::from_str(content).unwrap_or_default()));
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}
