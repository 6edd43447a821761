// Where each large tensor lies in the external-data file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graph/base/files.h"
#include "graph/base/hash.h"
#include "graph/ir/model.h"

namespace onnxpress {

class ExternalLayout {
 public:
  // Lays out tensors of at least `threshold` bytes: what is written as an initializer, and with
  // `attributes` also tensors in attributes (which not every runtime finds outside). Tensors that
  // share memory share a place. The model must outlive the layout. Reads all bytes once, to hash.
  ExternalLayout(const Model& model, std::size_t threshold, bool attributes);

  // Offset of the tensor, or nullptr when it stays in the model file.
  const std::size_t* find(const Tensor& tensor) const;

  bool has_attributes() const { return attributes_; }
  bool empty() const { return tensors_.empty(); }
  std::size_t file_bytes() const { return end_; }
  // 16 hexadecimal digits (XXH3) of contents and layout.
  const std::string& content_hash() const { return content_hash_; }
  // Name of the file, relative to the model's folder.
  void set_file_name(std::string name) { file_name_ = std::move(name); }
  const std::string& file_name() const { return file_name_; }

  // Writes the file's contents, padding included.
  void write(StagedFiles::Sink& sink) const;

 private:
  struct Place {
    std::span<const std::byte> bytes;
    std::size_t offset;
  };
  void add(const Tensor& tensor, std::size_t threshold);
  void add_attributes(const Node& node, std::size_t threshold);

  bool attributes_;
  std::vector<Place> tensors_;                                               // in order of offset
  std::map<std::pair<const std::byte*, std::size_t>, std::size_t> offsets_;  // by address and size
  std::size_t end_ = 0;
  std::string content_hash_;
  std::string file_name_;
};

// Whether the graph's constants are written as Constant nodes: a FunctionProto has no initializers,
// and up to IR 3 initializers must be inputs, which in a subgraph are bound by position.
bool writes_constants_as_nodes(const Graph& graph, const Model& model);

}  // namespace onnxpress
