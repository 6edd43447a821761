# Writes generated/onnxpress_abi.h: a hash of the public headers, which are the ones installed.
file(GLOB_RECURSE ONNXPRESS_PUBLIC_HEADERS CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
  graph/*.h passes/core/*.h passes/common/*.h)
list(SORT ONNXPRESS_PUBLIC_HEADERS)

set(digests "")
foreach(header IN LISTS ONNXPRESS_PUBLIC_HEADERS)
  file(SHA256 ${PROJECT_SOURCE_DIR}/${header} digest)
  string(APPEND digests "${header} ${digest}\n")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${header})
endforeach()
string(SHA256 ONNXPRESS_HEADERS_HASH "${digests}")
string(SUBSTRING ${ONNXPRESS_HEADERS_HASH} 0 16 ONNXPRESS_HEADERS_HASH)

find_file(version_header NAMES oneapi/dnnl/dnnl_version.h HINTS ${DNNL_INCLUDE_DIR} NO_CACHE REQUIRED)
file(STRINGS ${version_header} version REGEX "#define DNNL_VERSION_MAJOR")
string(REGEX REPLACE "[^0-9]*([0-9]+).*" "\\1" ONNXPRESS_ONEDNN_MAJOR "${version}")

configure_file(cmake/onnxpress_abi.h.in generated/onnxpress_abi.h @ONLY)
