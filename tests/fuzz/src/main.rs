//! With the feature `libfuzzer`: the fuzzer, which runs the target that CAMAGENT_FUZZ_TARGET names.
//! Without: `camagent-fuzz TARGET FILE…` replays files through a target, to look at a finding with a debugger.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static BODY: std::sync::OnceLock<fn(&[u8])> = std::sync::OnceLock::new();
    let body = BODY.get_or_init(|| {
        let name = std::env::var("CAMAGENT_FUZZ_TARGET").expect("cargo xtask fuzz sets CAMAGENT_FUZZ_TARGET");
        camagent_fuzz::target(&name).expect("cargo xtask fuzz has checked the name").body
    });
    body(data)
});

#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next().and_then(|name| camagent_fuzz::target(&name)) else {
        #[expect(clippy::print_stdout, reason = "a command line tool")]
        for target in camagent_fuzz::TARGETS {
            println!("{}", target.name);
        }
        return ExitCode::FAILURE;
    };
    for file in arguments {
        match std::fs::read(&file) {
            Ok(data) => (target.body)(&data),
            #[expect(clippy::print_stderr, reason = "a command line tool")]
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
