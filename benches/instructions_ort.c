/* Runs an ONNX model of one float input and one output N times on one thread through ONNX Runtime's C API.
 * usage: instructions_ort MODEL.onnx N [SIDE]   (input 1 x 3 x SIDE x SIDE, default 224) */
#include <stdio.h>
#include <stdlib.h>

#include "onnxruntime_c_api.h"

static const OrtApi *ort;

static void ok(OrtStatus *status) {
    if (status) {
        fprintf(stderr, "%s\n", ort->GetErrorMessage(status));
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.onnx N [SIDE]\n", argv[0]);
        return 64;
    }
    int frames = atoi(argv[2]);
    int64_t side = argc > 3 ? atoi(argv[3]) : 224;
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!ort) {
        fprintf(stderr, "the library is older than the header\n");
        return 69;
    }
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtMemoryInfo *memory;
    OrtAllocator *allocator;
    OrtValue *input;
    char *input_name, *output_name;
    ok(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "count", &env));
    ok(ort->CreateSessionOptions(&options));
    ok(ort->SetIntraOpNumThreads(options, 1));
    ok(ort->SetInterOpNumThreads(options, 1));
    ok(ort->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL));
    ok(ort->CreateSession(env, argv[1], options, &session));
    ok(ort->GetAllocatorWithDefaultOptions(&allocator));
    ok(ort->SessionGetInputName(session, 0, allocator, &input_name));
    ok(ort->SessionGetOutputName(session, 0, allocator, &output_name));
    int64_t shape[4] = {1, 3, side, side};
    size_t n = 3 * side * side;
    float *data = malloc(n * sizeof *data);
    for (size_t i = 0; i < n; i++) data[i] = (float)((i * 7919) % 256) - 120.0f;
    ok(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    ok(ort->CreateTensorWithDataAsOrtValue(memory, data, n * sizeof *data, shape, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                           &input));
    for (int i = 0; i < frames; i++) {
        OrtValue *output = NULL;
        const OrtValue *inputs[1] = {input};
        const char *in[1] = {input_name}, *out[1] = {output_name};
        ok(ort->Run(session, NULL, in, inputs, 1, out, 1, &output));
        ort->ReleaseValue(output);
    }
    return 0;
}
