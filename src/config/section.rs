//! One table of the file, read key by key.

use std::marker::PhantomData;

/// A table whose keys are being read.
#[derive(Debug)]
pub struct Section<'a>(PhantomData<&'a ()>);
