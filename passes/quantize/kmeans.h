// k-means of numbers on a line.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace onnxpress {

// At most `count` centers in ascending order that make the sum of squared distances of `sorted`
// (ascending, finite) to the nearest small. Up to 16 centers: the best partition by dynamic
// programming (Wang and Song, "Ckmeans.1d.dp", The R Journal 3/2, 2011; monotone, so divided and
// conquered) with cuts at 512 places, every place when there are no more distinct numbers than that,
// then Lloyd's iterations. More: centers as dense as the cube root of the numbers' density, which is
// optimal for many (Panter and Dite, Proceedings of the IRE 39, 1951), then Lloyd's iterations.
std::vector<float> k_means(std::span<const float> sorted, std::size_t count);

}  // namespace onnxpress
