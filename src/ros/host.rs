//! What the machine must provide.

/// Smallest limit of the kernel's receive buffer with which fragmented images arrive, bytes.
const ENOUGH: u64 = 4 * 1024 * 1024;

/// Logs what the machine lacks.
pub fn check() {
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max");
    if let Some(advice) = limit.ok().and_then(|text| text.trim().parse().ok()).and_then(receive_buffer_advice) {
        tracing::warn!("{advice}");
    }
}

/// What to do about `net.core.rmem_max`, where it is too small. Images travel as hundreds of UDP packets; what does
/// not fit the buffer while the receiver is busy is lost, on every DDS.
#[must_use]
pub fn receive_buffer_advice(limit: u64) -> Option<String> {
    (limit < ENOUGH).then(|| {
        format!(
            "the kernel's receive buffer is limited to {limit} bytes, too little for images; raise it with: \
             sudo sysctl -w net.core.rmem_max={}",
            2 * ENOUGH
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buffers_get_the_command_that_mends_them() {
        assert_eq!(receive_buffer_advice(ENOUGH), None);
        let advice = receive_buffer_advice(212_992).unwrap();
        assert!(advice.contains("212992") && advice.contains("sudo sysctl -w net.core.rmem_max=8388608"), "{advice}");
    }
}
