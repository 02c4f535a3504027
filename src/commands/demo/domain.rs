//! A ROS domain nobody on this machine is on.

use std::{env, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Error, Result};

/// Domains above 101 have ports in the range Linux gives to outgoing connections; the low ones are what people use.
const CANDIDATES: std::ops::RangeInclusive<u16> = 60..=101;

/// First port of a domain (DDSI-RTPS 2.3, 9.6.1: 7400 + 250 per domain), and how many follow it.
const fn ports(domain: u16) -> std::ops::Range<u16> {
    let first = 7400 + 250 * domain;
    first..first + 250
}

/// Makes `wanted`, or a domain that nobody uses, on this machine only, the domain of this process and its children, and
/// returns it. The environment is what every transport reads, and a running process cannot safely change its own: where
/// it is another, the program starts itself anew in its own place.
pub fn enter(wanted: Option<u16>) -> Result<u16> {
    let (id, local) = ("ROS_DOMAIN_ID", "ROS_LOCALHOST_ONLY");
    let is_set = |domain: u16| {
        env::var(id).is_ok_and(|value| value == domain.to_string()) && env::var(local).is_ok_and(|value| value == "1")
    };
    let domain = match wanted {
        Some(domain) if is_set(domain) => return Ok(domain),
        Some(domain) => domain,
        None => unused()?,
    };
    let mut command = Command::new(env::current_exe().context("cannot find this executable")?);
    command.args(env::args_os().skip(1)).env(id, domain.to_string()).env(local, "1");
    if wanted.is_none() {
        command.arg("--domain-id").arg(domain.to_string());
    }
    // Returns only when it fails.
    Err(Error::new(command.exec()).context("cannot start this executable anew"))
}

/// The lowest candidate without a UDP socket on any of its ports.
fn unused() -> Result<u16> {
    let mut used = Vec::new();
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        // Without the table (another system) every domain looks free, and the wire decides.
        used.extend(std::fs::read_to_string(table).map(|text| local_ports(&text)).unwrap_or_default());
    }
    let free = CANDIDATES.into_iter().find(|&domain| !used.iter().any(|port| ports(domain).contains(port)));
    free.context("every ROS domain from 60 to 101 is in use on this machine; choose one with --domain-id")
}

/// Ports in the second column (`address:port`, hexadecimal) of a `/proc/net/udp` table.
fn local_ports(table: &str) -> Vec<u16> {
    let rows = table.lines().skip(1);
    let local = rows.filter_map(|row| row.split_whitespace().nth(1));
    local.filter_map(|address| u16::from_str_radix(address.rsplit(':').next()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n \
                     2310: 00000000:5678 00000000:0000 07 00000000:00000000 00:00000000 00000000     0\n \
                     2311: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0\n";
        assert_eq!(local_ports(table), [0x5678, 0x35]);
    }

    #[test]
    fn domains_lie_below_the_ephemeral_ports() {
        assert_eq!(ports(0).start, 7400);
        assert!(ports(*CANDIDATES.end()).start < 32768);
        assert!(CANDIDATES.contains(&unused().unwrap()));
    }
}
