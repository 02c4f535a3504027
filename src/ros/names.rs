//! ROS names: validity, expansion, namespaces (<https://design.ros2.org/articles/topic_and_service_names.html>).

/// A name that ROS does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a valid {what}: {reason}")]
pub struct InvalidName {
    /// The name.
    pub name: String,
    /// `node name`, `namespace` or `topic or service name`.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Checks what stands between two slashes of a name.
pub(super) fn check_token(token: &str) -> Result<(), &'static str> {
    if token.is_empty() {
        return Err("it has an empty part");
    }
    if token.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a part begins with a digit");
    }
    if !token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("only letters, digits and underscores are allowed between slashes");
    }
    Ok(())
}

/// Checks a node's base name.
///
/// # Errors
/// [`InvalidName`].
pub fn check_node_name(name: &str) -> Result<(), InvalidName> {
    check_token(name).map_err(|reason| InvalidName { name: name.to_owned(), what: "node name", reason })
}

/// Brings a namespace into the form `/` or `/a/b`.
///
/// # Errors
/// [`InvalidName`].
pub fn normalise_namespace(namespace: &str) -> Result<String, InvalidName> {
    let inner = namespace.strip_prefix('/').unwrap_or(namespace);
    if inner.is_empty() {
        return Ok("/".to_owned());
    }
    for token in inner.split('/') {
        check_token(token).map_err(|reason| InvalidName { name: namespace.to_owned(), what: "namespace", reason })?;
    }
    Ok(format!("/{inner}"))
}

/// `namespace` and `name` joined.
#[must_use]
pub fn join(namespace: &str, name: &str) -> String {
    if namespace == "/" { format!("/{name}") } else { format!("{namespace}/{name}") }
}

/// Expands a topic or service name to its full form: `/a` stays, `~/a` goes below the node, `a` into its namespace;
/// `{node}` and `{ns}`/`{namespace}` are replaced.
///
/// # Errors
/// [`InvalidName`].
pub fn expand(name: &str, namespace: &str, node: &str) -> Result<String, InvalidName> {
    let invalid = |reason| InvalidName { name: name.to_owned(), what: "topic or service name", reason };
    let bare_namespace = namespace.strip_prefix('/').unwrap_or(namespace);
    let filled = name.replace("{node}", node).replace("{ns}", bare_namespace).replace("{namespace}", bare_namespace);
    let full = if filled.starts_with('/') {
        filled
    } else if let Some(rest) = filled.strip_prefix('~') {
        if !rest.is_empty() && !rest.starts_with('/') {
            return Err(invalid("~ must be followed by a slash"));
        }
        format!("{}{rest}", join(namespace, node))
    } else {
        join(namespace, &filled)
    };
    for token in full.split('/').skip(1) {
        check_token(token).map_err(invalid)?;
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_expand_as_in_the_ros_design() {
        let full = |name| expand(name, "/my_ns", "my_node").unwrap();
        assert_eq!(full("ping"), "/my_ns/ping");
        assert_eq!(full("/ping"), "/ping");
        assert_eq!(full("~"), "/my_ns/my_node");
        assert_eq!(full("~/ping"), "/my_ns/my_node/ping");
        assert_eq!(full("{node}/ping"), "/my_ns/my_node/ping");
        assert_eq!(full("/{ns}/ping"), "/my_ns/ping");
        assert_eq!(expand("ping", "/", "n").unwrap(), "/ping");
        assert_eq!(expand("~/ping", "/", "n").unwrap(), "/n/ping");
    }

    #[test]
    fn impossible_names_are_refused() {
        for name in ["", "/", "a//b", "a/", "~a", "a b", "9lives", "/x/9", "a-b", "{what}/a", "ü"] {
            assert!(expand(name, "/", "n").is_err(), "{name:?} was accepted");
        }
        assert!(check_node_name("a/b").is_err());
        assert!(check_node_name("").is_err());
        assert_eq!(normalise_namespace("").unwrap(), "/");
        assert_eq!(normalise_namespace("robot/arm").unwrap(), "/robot/arm");
        assert!(normalise_namespace("/robot/").is_err());
    }
}
