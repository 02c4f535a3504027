//! One loop, compiled twice: for the baseline of the target and, on x86-64, for processors with AVX2.

/// Defines a function whose body is also compiled with AVX2 enabled and chosen at run time. The body must be a plain
/// loop that the compiler can vectorise (release builds check overflow, so integers need the `wrapping_` operations);
/// results do not depend on the choice.
macro_rules! multiversioned {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident $(<const $n:ident: usize>)? ($($arg:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $visibility fn $name $(<const $n: usize>)? ($($arg: $type),*) {
            #[inline(always)]
            fn body $(<const $n: usize>)? ($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide $(<const $n: usize>)? ($($arg: $type),*) {
                    body $(::<$n>)? ($($arg),*);
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2, the only thing `wide` asks for beyond its types.
                    unsafe { wide $(::<$n>)? ($($arg),*) };
                    return;
                }
            }
            body $(::<$n>)? ($($arg),*);
        }
    };
}
pub(crate) use multiversioned;
