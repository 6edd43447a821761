// Parts that several reports share.
#pragma once

#include <string>

#include "tools/document.h"

namespace onnxpress {

// Numbers of the JSON, "inf" and "nan" included.
double to_number(const Json& value);
// "[1,3,224,224]".
std::string dims_text(const Json& dims);
// A metric's {"value", "interval95"}: "99.40 %" or "0.0163"; "98.3 to 99.8 %" or nothing.
Cell metric_cell(const std::string& metric, const Json& value);
Cell interval_cell(const Json& value);

// Two models side by side: size, parameters, MACs, accuracy.
Table before_after_table(const Json& report);
Table model_table(const Json& report);
Table interface_table(const Json& section);
void add_output_errors(Document& document, const Json& report);
void add_passes(Document& document, const Json& report);
void add_sizes(Document& document, const Json& report, bool verbose);  // by type and by operator
void add_layers(Document& document, const Json& report, bool verbose);
void add_trainings(Document& document, const Json& report, bool verbose);  // curves by epoch
void add_near_misses(Document& document, const Json& report);
void add_operator_table(Document& document, const Json& model, bool verbose);
void add_type_table(Document& document, const Json& model);
void add_tensor_table(Document& document, const Json& model);
Document layout_passes(const Json& report, bool verbose);
Document layout_analyze(const Json& report, bool verbose);
// The report's first lines: headline, warnings, what it is about.
void add_headline(Document& document, const Json& report, const std::string& what,
                  const std::string& more = "");
void add_notes(Document& document, const Json& report);
std::string file_name(const Json& model);  // "(pipe)" for one without

}  // namespace onnxpress
