//! The environment variables every ROS 2 node obeys.

use super::TransportError;

/// Largest domain whose ports fit below 65536.
const MAX_DOMAIN: u16 = 232;

/// Who can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryRange {
    /// Everybody multicast reaches.
    Subnet,
    /// Nodes of this machine.
    Localhost,
    /// Nobody.
    Off,
}

/// Domain and discovery range of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment {
    /// DDS domain, `ROS_DOMAIN_ID`.
    pub domain: u16,
    /// `ROS_AUTOMATIC_DISCOVERY_RANGE`, or `ROS_LOCALHOST_ONLY` where that is set.
    pub range: DiscoveryRange,
}

impl Environment {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`TransportError::Environment`] for values ROS 2 does not know.
    pub fn from_process() -> Result<Self, TransportError> {
        if let Some(peers) = std::env::var("ROS_STATIC_PEERS").ok().filter(|peers| !peers.is_empty()) {
            tracing::warn!(%peers, "ROS_STATIC_PEERS is not supported by this transport and ignored");
        }
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// As [`Self::from_process`], with variables from `lookup`. Empty values count as unset.
    ///
    /// # Errors
    /// As [`Self::from_process`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, TransportError> {
        let get = |name| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let wrong = |name, value, reason| TransportError::Environment { name, value, reason };
        let domain = match get("ROS_DOMAIN_ID") {
            None => 0,
            Some(text) => match text.parse::<u16>() {
                Ok(domain) if domain <= MAX_DOMAIN => domain,
                _ => return Err(wrong("ROS_DOMAIN_ID", text, "must be a whole number from 0 to 232")),
            },
        };
        // As in rmw: ROS_LOCALHOST_ONLY is deprecated but wins where it is set to 1.
        let range = match get("ROS_LOCALHOST_ONLY").as_deref() {
            Some("1") => DiscoveryRange::Localhost,
            None | Some("0") => match get("ROS_AUTOMATIC_DISCOVERY_RANGE") {
                None => DiscoveryRange::Subnet,
                Some(text) => match text.to_ascii_uppercase().as_str() {
                    "SUBNET" | "SYSTEM_DEFAULT" => DiscoveryRange::Subnet,
                    "LOCALHOST" => DiscoveryRange::Localhost,
                    "OFF" => DiscoveryRange::Off,
                    _ => {
                        let reason = "must be SUBNET, LOCALHOST, OFF or SYSTEM_DEFAULT";
                        return Err(wrong("ROS_AUTOMATIC_DISCOVERY_RANGE", text, reason));
                    }
                },
            },
            Some(other) => return Err(wrong("ROS_LOCALHOST_ONLY", other.to_owned(), "must be 0 or 1")),
        };
        Ok(Self { domain, range })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, TransportError> {
        Environment::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_and_values() {
        let subnet = |domain| Environment { domain, range: DiscoveryRange::Subnet };
        assert_eq!(read(&[]).unwrap(), subnet(0));
        assert_eq!(read(&[("ROS_DOMAIN_ID", "")]).unwrap(), subnet(0));
        assert_eq!(read(&[("ROS_DOMAIN_ID", "42")]).unwrap(), subnet(42));
        let range = |pairs: &[(&str, &str)]| read(pairs).unwrap().range;
        assert_eq!(range(&[("ROS_LOCALHOST_ONLY", "1")]), DiscoveryRange::Localhost);
        assert_eq!(range(&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "localhost")]), DiscoveryRange::Localhost);
        assert_eq!(range(&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")]), DiscoveryRange::Off);
        assert_eq!(
            range(&[("ROS_LOCALHOST_ONLY", "1"), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")]),
            DiscoveryRange::Localhost
        );
        assert_eq!(
            range(&[("ROS_LOCALHOST_ONLY", "0"), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")]),
            DiscoveryRange::Localhost
        );
    }

    #[test]
    fn unusable_values_are_errors() {
        for (name, value) in [
            ("ROS_DOMAIN_ID", "233"),
            ("ROS_DOMAIN_ID", "-1"),
            ("ROS_DOMAIN_ID", "seven"),
            ("ROS_LOCALHOST_ONLY", "yes"),
            ("ROS_AUTOMATIC_DISCOVERY_RANGE", "PLANET"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
