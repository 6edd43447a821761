// Parameters that an exporter made one because they were equal, made several again.
#pragma once

#include <cstddef>
#include <string>

#include "graph/ir/model.h"

namespace onnxpress {

// Exporters store equal initializers once: in an untrained model the scales of all
// BatchNormalizations, their biases and means. Trained like that they would stay one. Gives every
// result of an Identity over a floating-point initializer of the main graph an initializer of its
// own, under its name, and every BatchNormalization its own scale, bias, mean and variance. Weights
// that several nodes read as they are stay shared: tied on purpose. Returns how many were added.
std::size_t untie_parameters(Model& model);

// `trained` is a copy of `model` that was untied, then trained. Gives `model` its initializers, untied as well; where no value
// has changed, leaves it as it is, and returns false.
bool take_trained(Model& model, const Model& trained);

// What a pass says of `count` parameters that it has untied.
std::string untied_note(std::size_t count);

}  // namespace onnxpress
