//! The page: its files as they are served, built into the program.

/// A file of the page.
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// What it is.
    pub media_type: &'static str,
    /// What it holds.
    pub text: &'static str,
}

/// All files.
pub const ASSETS: &[Asset] = &[
    Asset { path: "/", media_type: "text/html; charset=utf-8", text: include_str!("index.html") },
    Asset { path: "/page.js", media_type: "text/javascript; charset=utf-8", text: include_str!("page.js") },
];
