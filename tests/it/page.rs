//! The page in a real browser. A datagram that the test sends appears in the picture, problems stand out, and nothing
//! is loaded from elsewhere. Pictures of the page are saved in `target/artifacts/`.

use crate::common::browser::{Browser, DESKTOP, PHONE};
use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::namespace::netns_test;
use crate::common::upstream::{Server, forwarder};

const ORIGIN: &str = "http://127.0.0.1:9253/";
const DAEMON: &str = "[daemon]\nhttp = \"127.0.0.1:9253\"\nreceive_buffer = \"128KiB\"\n";

/// The codes of keys in WebDriver.
const ENTER: char = '\u{e007}';
const ESCAPE: char = '\u{e00c}';

const ECHO: &str = "route:127.0.0.1:1234";

fn node(key: &str) -> String {
    format!("document.querySelector('.node[data-key=\"{key}\"]')")
}

/// The numbers of a row in the open panel, by the row's name.
fn figures(name: &str) -> String {
    let row =
        format!("document.querySelector('#details section:not([hidden]) tr[data-key=\"{name}\"]')");
    format!("[...({row}?.querySelectorAll('td') ?? [])].map((cell) => cell.textContent)")
}

fn open(browser: &Browser) {
    browser.show_as(DESKTOP, "light");
    browser.open(ORIGIN);
    browser.wait("document.body.dataset.stream === 'live' && document.querySelector('.node')");
}

fn assert_quiet(browser: &Browser) {
    assert_eq!(
        browser.complaints(),
        Vec::<String>::new(),
        "the console has nothing to say"
    );
    let requests = browser.requests();
    assert!(
        requests.len() > 10,
        "the page's files were asked for: {requests:?}"
    );
    let foreign: Vec<&String> = requests
        .iter()
        .filter(|url| !url.starts_with(ORIGIN))
        .collect();
    assert!(foreign.is_empty(), "asked elsewhere: {foreign:?}");
}

fn picture(browser: &Browser, name: &str) {
    for (window, size) in [("desktop", DESKTOP), ("phone", PHONE)] {
        for colours in ["light", "dark"] {
            browser.show_as(size, colours);
            browser.wait(&format!(
                "document.querySelector('#flow').classList.contains('compact') === {}",
                size == PHONE
            ));
            browser.wait("document.documentElement.scrollWidth <= innerWidth");
            browser.keep_picture(&format!("page-{name}-{window}-{colours}"));
        }
    }
    browser.show_as(DESKTOP, "light");
    browser.wait("!document.querySelector('#flow').classList.contains('compact')");
}

/// Traffic is shown: its total on every node on its path, and a rate and a ribbon while it flows. A node opens by mouse
/// and by keyboard, and shows sessions, drops by reason and errors by errno.
#[test]
fn datagrams_show_up_in_the_picture() {
    netns_test!(needs = ["chromium", "chromedriver"], with = [heavy]);
    let server = Server::named("up", "127.0.0.1:7001");
    let echo = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n";
    let asked = forwarder(
        "asked",
        "127.0.0.1:2000",
        &format!("[\"{}\"]", server.address()),
        "",
    );
    let lost = forwarder("lost", "127.0.0.1:2001", "[\"127.0.0.1:9\"]", "");
    let daemon = Daemon::start(&[DAEMON, echo, &asked, &lost].concat());
    let browser = Browser::start();
    open(&browser);
    browser.wait(&format!("{}.dataset.total === '0'", node(ECHO)));

    let client = Client::newcomer();
    let mut sent = 0;
    eventually("a rate and a ribbon are shown while datagrams flow", || {
        (0..10).for_each(|_| _ = client.ask(b"?", "127.0.0.1:1234"));
        sent += 10;
        let ribbon =
            format!("document.querySelector('.ribbon[data-key=\"{ECHO} > handler:echo\"]')");
        let rate = format!("{}.querySelector('.rate').textContent", node(ECHO));
        browser.run(&format!(
            "return Boolean({ribbon}) && parseFloat({rate}) > 0"
        )) == true
    });
    for key in [ECHO, "handler:echo"] {
        browser.wait(&format!("{}.dataset.total === '{sent}'", node(key)));
        browser.wait(&format!(
            "{}.querySelector('.rate').textContent === '0/s'",
            node(key)
        ));
    }
    browser.wait("!document.querySelector('.ribbon')");

    for _ in 0..7 {
        client.ask(b"?", "127.0.0.1:2000");
    }
    for key in [
        "route:127.0.0.1:2000",
        "handler:asked",
        "upstream:asked/127.0.0.1:7001",
    ] {
        browser.wait(&format!("{}.dataset.total === '7'", node(key)));
    }
    browser.click(".node[data-key='handler:asked']");
    browser.wait("document.querySelector('#details h2').textContent === 'asked'");
    browser.wait(&format!("{}[0] === '1'", figures("sessions open")));
    browser.wait(&format!("{}[1] === '7'", figures("replies")));
    browser
        .wait("document.querySelector('#details .chart .line.s0').getAttribute('d').length > 20");
    picture(&browser, "open");
    browser.click("#details .close");
    browser.wait("document.querySelector('#details').hidden");

    Client::bind("127.0.0.1:1000").send(b"?", "127.0.0.1:1234");
    browser.run(&format!("{}.focus()", node("handler:echo")));
    browser.press(ENTER);
    browser.wait("document.querySelector('#details h2').textContent === 'echo'");
    browser.wait(&format!("{}[1] === '1'", figures("low_source_port")));
    browser.wait("document.querySelector('[data-key=low_source_port] small').textContent.includes('allow_low_ports')");
    browser.press(ESCAPE);
    browser.wait("document.querySelector('#details').hidden");
    browser.wait("document.activeElement.dataset.key === 'handler:echo'");

    browser.click(".node[data-key='handler:lost']");
    eventually("what is refused is told by its errno", || {
        client.send(b"?", "127.0.0.1:2001");
        let rows = "return [...document.querySelectorAll('#details tr')].map((row) => row.dataset.key).join(' ')";
        browser.text(rows).contains("ECONNREFUSED")
    });
    picture(&browser, "refused");
    assert_quiet(&browser);
    drop(browser);
    daemon.stop();
}

/// Kernel drops stand out: an alarm with its cure, and a node that says so and is marked by more than its colour.
#[test]
fn kernel_drops_stand_out() {
    netns_test!(needs = ["chromium", "chromedriver"], with = [heavy]);
    let route = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"drop\"\n";
    let daemon = Daemon::start(&[DAEMON, route].concat());
    let browser = Browser::start();
    open(&browser);
    browser.wait("document.querySelector('#alarms').hidden");
    daemon.pause();
    let client = Client::newcomer();
    (0..5_000).for_each(|_| client.send(&[0; 100], "127.0.0.1:1234"));
    daemon.resume();
    browser
        .wait("document.querySelector('#alarms li.bad')?.textContent.includes('receive_buffer')");
    browser.wait(&format!("{}.classList.contains('bad')", node(ECHO)));
    browser.wait(&format!(
        "{}.querySelector('.glyph').textContent !== ''",
        node(ECHO)
    ));
    browser.wait(&format!(
        "/lost|kernel/.test({}.querySelector('.note').textContent)",
        node(ECHO)
    ));
    browser.wait("document.title.startsWith('(1!)')");
    picture(&browser, "kernel-drops");
    browser.click("#alarms button");
    browser
        .wait("document.querySelector('#details .cures')?.textContent.includes('receive_buffer')");
    assert_quiet(&browser);
    drop(browser);
    daemon.stop();
}

/// Of hundreds of rows, the busiest few are shown. The others are one node that can be opened, and the filter finds
/// each of them.
#[test]
fn hundreds_of_rows_stay_usable() {
    netns_test!(needs = ["chromium", "chromedriver"], with = [heavy]);
    let route =
        |port: u16| format!("[[route]]\ndestination = \"127.0.0.1:{port}\"\nhandler = \"echo\"\n");
    let routes: String = (10_000..10_400).map(route).collect();
    let daemon = Daemon::start(&[DAEMON, &routes].concat());
    let browser = Browser::start();
    open(&browser);
    browser.wait("document.querySelectorAll('.node.route').length === 13");
    browser.wait(&format!(
        "{}.textContent.includes('388 more')",
        node("more:route")
    ));
    browser.wait(&format!("!{}", node("route:127.0.0.1:10399")));
    let client = Client::newcomer();
    eventually("who becomes busy is shown", || {
        client.ask(b"?", "127.0.0.1:10399");
        browser.run(&format!(
            "return Boolean({})",
            node("route:127.0.0.1:10399")
        )) == true
    });
    picture(&browser, "many");
    browser.click(".node[data-key='more:route']");
    browser.wait("document.querySelectorAll('#details .links li').length === 200");
    browser.run(
        "const filter = document.querySelector('#filter'); filter.value = ':10222'; \
         filter.dispatchEvent(new Event('input', { bubbles: true }))",
    );
    browser.wait("document.querySelectorAll('.node.route').length === 1");
    browser.wait(&format!(
        "{} && {}",
        node("route:127.0.0.1:10222"),
        node("handler:echo")
    ));
    assert_quiet(&browser);
    drop(browser);
    daemon.stop();
}

/// If the stream breaks off, the page says so and marks its contents as old. When the daemon is back, so is the
/// picture.
#[test]
fn a_broken_stream_is_told_and_mended() {
    netns_test!(needs = ["chromium", "chromedriver"], with = [heavy]);
    let config = [
        DAEMON,
        "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n",
    ]
    .concat();
    let daemon = Daemon::start(&config);
    let browser = Browser::start();
    open(&browser);
    let client = Client::newcomer();
    client.ask(b"?", "127.0.0.1:1234");
    browser.wait(&format!("{}.dataset.total === '1'", node(ECHO)));
    daemon.stop();
    browser.wait("document.body.dataset.stream === 'stale'");
    browser.wait("/ old\\. Trying again/.test(document.querySelector('#broken').textContent)");
    browser.keep_picture("page-stale-desktop-light");
    let daemon = Daemon::start(&config);
    // The page may be back by itself already, without the button.
    browser.run("document.querySelector('#broken button').click()");
    browser.wait(
        "document.body.dataset.stream === 'live' && document.querySelector('#broken').hidden",
    );
    browser.wait(&format!("{}.dataset.total === '0'", node(ECHO)));
    drop(browser);
    daemon.stop();
}
