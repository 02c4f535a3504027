//! The address that requests go to, and the key that goes with them.

use url::{Host, Url};

use super::{
    ChatConfig, ChatConfigError,
    secret::{Secret, excerpt},
};

/// What every base URL is completed with.
const PATH: &str = "chat/completions";
/// Stands for an address of which nothing is safe to show.
const HIDDEN: &str = "(not shown, it may hold a key)";

/// An address that requests may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: Url,
    /// Whether it is on this machine: no proxy stands in between then, and plain `http` is harmless.
    pub(super) loopback: bool,
}

impl Endpoint {
    /// Checks the configured base.
    pub(super) fn new(base: &str, allow_http: bool) -> Result<Self, ChatConfigError> {
        let parsed = Url::parse(base.trim());
        let shown = parsed.as_ref().map_or_else(|_| HIDDEN.to_owned(), visible);
        let error = |reason: &str| ChatConfigError::Url { url: shown.clone(), reason: reason.into() };
        let mut url = parsed.map_err(|e| error(&format!("not a URL: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(error("expected http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error("must not hold a user or a password; the key comes from an environment variable"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(error("must not have a query or a fragment"));
        }
        if url.path().trim_end_matches('/').ends_with(PATH) {
            return Err(error("must be given without /chat/completions"));
        }
        let loopback = url.host().as_ref().is_some_and(is_loopback);
        if url.scheme() == "http" && !loopback && !allow_http {
            return Err(error("plain http is only for this machine (localhost); use https, or allow it explicitly"));
        }
        url.path_segments_mut()
            .map_err(|()| error("cannot be completed with a path"))?
            .pop_if_empty()
            .extend(PATH.split('/'));
        Ok(Self { url, loopback })
    }
}

/// What messages say of an address: scheme, host, port and path. A key may stand in each other part, and what is no web
/// address may be the key itself.
fn visible(url: &Url) -> String {
    match url.host_str() {
        Some(host) if matches!(url.scheme(), "http" | "https") => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            excerpt(&format!("{}://{host}{port}{}", url.scheme(), url.path()), None)
        }
        _ => HIDDEN.to_owned(),
    }
}

/// The names and addresses that stay on this machine whatever a name server says.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// The endpoint's key from the environment, which `variable` reads; see [`ChatConfig::key_variable`].
pub(super) fn key(
    config: &ChatConfig,
    loopback: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, ChatConfigError> {
    let name = &config.key_variable;
    if name.is_empty() {
        return Ok(None);
    }
    match variable(name).filter(|content| !content.trim().is_empty()) {
        Some(content) => match Secret::new(&content) {
            Some(key) => Ok(Some(key)),
            None => Err(ChatConfigError::KeyForm { variable: called(name) }),
        },
        None if loopback => Ok(None),
        None => Err(ChatConfigError::KeyMissing { variable: called(name) }),
    }
}

/// What messages call the variable of this name. Only capitals are shown: anything else may be the key, put in the
/// name's place.
fn called(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
        format!("the environment variable {name}")
    } else {
        "the environment variable named by llm.key_variable".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_completed() {
        for (base, expected) in [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
            ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
            ("http://localhost:11434", "http://localhost:11434/chat/completions"),
            ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
        ] {
            assert_eq!(Endpoint::new(base, false).unwrap().url.as_str(), expected);
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for local in
            ["http://LOCALHOST/v1", "http://127.0.0.1/v1", "http://127.8.9.1:80", "http://[::1]", "http://127.1"]
        {
            assert!(Endpoint::new(local, false).unwrap().loopback, "{local}");
        }
        for other in [
            "http://example.org",
            "http://localhost.example.org",
            "http://128.0.0.1",
            "http://[::2]",
            "http://10.0.0.1",
        ] {
            assert!(Endpoint::new(other, false).is_err(), "{other}");
            assert!(!Endpoint::new(other, true).unwrap().loopback, "{other}");
        }
        assert!(!Endpoint::new("https://example.org", false).unwrap().loopback);
    }

    #[test]
    fn other_addresses_are_refused() {
        let shown = "https://example.org/v1";
        for (base, address, reason) in [
            ("", HIDDEN, "not a URL"),
            ("api.openai.com/v1?key=s3cret", HIDDEN, "not a URL"),
            ("https://example.org:99999/v1?key=s3cret", HIDDEN, "not a URL"),
            ("sk-s3cret", HIDDEN, "not a URL"),
            ("sk:s3cret", HIDDEN, "http or https"),
            ("ftp://s3cret/", HIDDEN, "http or https"),
            ("https://me:s3cret@example.org/v1", shown, "password"),
            ("https://s3cret@example.org/v1", shown, "password"),
            ("https://example.org/v1?key=s3cret", shown, "query"),
            ("https://example.org/v1#s3cret", shown, "query"),
            ("http://[::2]:8000/v1?key=s3cret", "http://[::2]:8000/v1", "query"),
            ("https://example.org/v1/chat/completions", "https://example.org/v1/chat/completions", "without"),
        ] {
            let error = Endpoint::new(base, true).unwrap_err();
            let message = error.to_string();
            assert!(message.starts_with(&format!("base URL {address}: ")) && message.contains(reason), "{message}");
            assert!(!format!("{message} {error:?}").to_lowercase().contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn a_key_in_place_of_its_variables_name_is_not_shown() {
        for (name, shown) in
            [("MY_KEY_2", "variable MY_KEY_2 "), ("sk_live_s3cret", "variable named by llm.key_variable ")]
        {
            let config = ChatConfig { key_variable: name.into(), ..ChatConfig::default() };
            for content in [None, Some("a b".to_owned())] {
                let error = key(&config, false, |_| content.clone()).unwrap_err();
                let message = error.to_string();
                assert!(message.contains(shown), "{message}");
                assert!(!format!("{message} {error:?}").contains("s3cret"), "{message}");
            }
        }
    }

    #[test]
    fn the_key_comes_from_the_named_variable() {
        let config = |name: &str| ChatConfig { key_variable: name.into(), ..ChatConfig::default() };
        let environment = |name: &str| match name {
            "KEY" => Some("abc\n".to_owned()),
            "BAD" => Some("a b".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let found = key(&config("KEY"), false, environment).unwrap();
        assert_eq!(found.unwrap().expose(), "abc");
        assert!(key(&config(""), false, environment).unwrap().is_none());
        assert!(key(&config("NONE"), true, environment).unwrap().is_none());
        for name in ["NONE", "EMPTY"] {
            assert!(matches!(key(&config(name), false, environment), Err(ChatConfigError::KeyMissing { .. })));
        }
        assert!(matches!(key(&config("BAD"), true, environment), Err(ChatConfigError::KeyForm { .. })));
    }
}
