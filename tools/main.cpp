#include "tools/cli.h"

int main(int argc, char** argv) { return onnxpress::run_command(argc, argv); }
