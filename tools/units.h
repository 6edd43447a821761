// Numbers as people write and read them: "2MB", "0.5%", "1/255".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace onnxpress {

// All throw Error: "expected a size such as 500KB or 2MiB, found '2XB'".

// Bytes: a number and B, KB, MB, GB, TB (powers of 1000) or KiB ... TiB (of 1024); no unit: bytes.
std::int64_t parse_size(std::string_view text);
// "0.5%" and "0.5" are both 0.5.
double parse_percent(std::string_view text);
// "0.25", "1/255", "1e-3".
double parse_number(std::string_view text);
// "0.485,0.456,1/4".
std::vector<double> parse_numbers(std::string_view text);
// "1x3x224x224".
std::vector<std::int64_t> parse_dims(std::string_view text);
// Splits "name=value" at the last '='; throws when there is none.
std::pair<std::string, std::string> parse_assignment(std::string_view text);

// "412 B", "273.1 KB", "1.24 GB": decimal units, four significant digits at most.
std::string human_size(double bytes);
// "68.2 k", "3.4 M": counts of things.
std::string human_count(double count);
// "273,121".
std::string grouped(std::int64_t number);
// "12.3 ms", "4.21 s", "3 min 20 s".
std::string human_seconds(double seconds);
// A number in a readable number of digits; "inf", "nan".
std::string human_number(double value);

}  // namespace onnxpress
