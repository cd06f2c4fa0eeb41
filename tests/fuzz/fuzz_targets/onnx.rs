#![no_main]

// A panic that is caught, where tract meets a damaged graph, is none of ours: only one that gets out ends the run.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| outlierd_fuzz::onnx(bytes));
