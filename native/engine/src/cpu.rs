//! What this processor does in hardware.

/// Whether AES-256-GCM runs on instructions of its own here: AES rounds and carry-less multiplication.
///
/// Where this is false, table-driven AES is slow and leaks through the cache, so AES is not offered to peers.
#[must_use]
pub fn hardware_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        // One feature name covers FEAT_AES and FEAT_PMULL.
        std::arch::is_aarch64_feature_detected!("aes")
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::hardware_aes;

    /// The kernel's own list is the second witness.
    #[test]
    #[cfg(target_os = "linux")]
    fn agrees_with_the_kernel() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("/proc is mounted");
        let flags: Vec<&str> = cpuinfo
            .lines()
            .find(|line| line.starts_with("flags") || line.starts_with("Features"))
            .map(|line| line.split_whitespace().collect())
            .unwrap_or_default();
        let multiply = flags.contains(&"pclmulqdq") || flags.contains(&"pmull");
        assert_eq!(hardware_aes(), flags.contains(&"aes") && multiply);
    }
}
