//! The parameters of a request: each by its name, at most once, and as a typed value. An invalid parameter is refused
//! with a text that says what to write.

use super::endpoint::RequestError;
use crate::config::diagnostics::{did_you_mean, listed, quoted};

/// All parameters, in the order of the request, decoded.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Parses the query of a request target (`application/x-www-form-urlencoded`, WHATWG URL, section 5). Any text is
    /// such a list.
    pub fn parse(query: &str) -> Parameters {
        Parameters(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }
}

/// One parameter, which may be absent.
pub struct Parameter {
    name: &'static str,
    text: Option<String>,
}

/// Returns the parameters with these names, in this order.
///
/// # Errors
///
/// Returns [`RequestError::Parameter`] if another parameter is present, or if one is present twice.
pub fn only<const N: usize>(
    names: [&'static str; N],
    Parameters(parameters): Parameters,
) -> Result<[Parameter; N], RequestError> {
    let mut all = names.map(|name| Parameter { name, text: None });
    for (name, text) in parameters {
        let Some(parameter) = all.iter_mut().find(|parameter| parameter.name == name) else {
            let meant = did_you_mean(&name, names)
                .unwrap_or_else(|| format!("write {}", listed(names, "or")));
            return Err(RequestError::Parameter(format!(
                "there is no parameter {} here; {meant}",
                quoted(&name)
            )));
        };
        if parameter.text.replace(text).is_some() {
            return Err(RequestError::Parameter(format!(
                "the parameter `{name}` occurs twice; write it once"
            )));
        }
    }
    Ok(all)
}

impl Parameter {
    /// Returns the text of the parameter, if it is present.
    pub fn text(self) -> Option<String> {
        self.text
    }

    /// Returns the text of a required parameter; `what` says what to write.
    ///
    /// # Errors
    ///
    /// Returns [`RequestError::Parameter`] if the parameter is absent.
    pub fn required(self, what: &str) -> Result<String, RequestError> {
        self.required_as(what, |text| Some(text.to_owned()))
    }

    /// Returns the value of the parameter, if it is present; `what` says what to write.
    ///
    /// # Errors
    ///
    /// Returns [`RequestError::Parameter`] if the text is not a valid value.
    pub fn read<T>(
        self,
        what: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, RequestError> {
        let Some(text) = self.text else {
            return Ok(None);
        };
        let wrong = || {
            RequestError::Parameter(format!(
                "the parameter `{}` is {}; write {what}",
                self.name,
                quoted(&text)
            ))
        };
        read(&text).ok_or_else(wrong).map(Some)
    }

    /// Returns the value of a required parameter; `what` says what to write.
    ///
    /// # Errors
    ///
    /// Returns [`RequestError::Parameter`] if the parameter is absent or its text is not a valid value.
    pub fn required_as<T>(
        self,
        what: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, RequestError> {
        let name = self.name;
        let missing =
            || RequestError::Parameter(format!("the parameter `{name}` is missing; write {what}"));
        self.read(what, read)?.ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters are returned in the order of their names, whatever their order in the request. Unknown and repeated
    /// parameters are refused instead of ignored.
    #[test]
    fn names() {
        let texts = |query| {
            only(["to", "from"], Parameters::parse(query)).map(|all| all.map(Parameter::text))
        };
        assert_eq!(
            texts("from=b%20c&to=").unwrap(),
            [Some(String::new()), Some("b c".to_owned())]
        );
        assert_eq!(texts("").unwrap(), [None, None]);
        assert_eq!(
            texts("form=a").unwrap_err().line(),
            "there is no parameter \"form\" here; did you mean \"from\"?"
        );
        assert_eq!(
            texts("%ff=a").unwrap_err().line(),
            "there is no parameter \"\u{fffd}\" here; write to or from"
        );
        assert!(texts("to=a&to=a").unwrap_err().line().contains("twice"));
    }
}
