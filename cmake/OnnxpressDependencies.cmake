# Every third-party library, and the layers that may see it.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(Protobuf REQUIRED)
find_package(ONNX REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)
# Debian's package files of these ask for more than the library (OpenCL headers, zip tools, gtest).
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
find_path(HWY_INCLUDE_DIR hwy/highway.h REQUIRED)
find_library(HWY_LIBRARY hwy REQUIRED)
find_path(ZIP_INCLUDE_DIR zip.h REQUIRED)
find_library(ZIP_LIBRARY zip REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED)
find_package(JPEG REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
find_library(XXHASH_LIBRARY xxhash REQUIRED)

if(NOT TARGET ONNX::onnx_proto)  # 1.12 exports the plain name
  add_library(ONNX::onnx_proto INTERFACE IMPORTED)
  target_link_libraries(ONNX::onnx_proto INTERFACE onnx_proto)
endif()
if(NOT TARGET yaml-cpp::yaml-cpp)  # 0.7 exports the plain name
  add_library(yaml-cpp::yaml-cpp INTERFACE IMPORTED)
  target_link_libraries(yaml-cpp::yaml-cpp INTERFACE yaml-cpp)
endif()

# oneDNN runs on GNU OpenMP here, and so does our thread pool: that very runtime, whatever the
# compiler, so it is linked by name and -fopenmp is not used.
find_library(GOMP_LIBRARY NAMES gomp libgomp.so.1 PATH_SUFFIXES gcc
  HINTS ${CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES} /usr/lib/gcc/${CMAKE_CXX_LIBRARY_ARCHITECTURE}
        /usr/lib/${CMAKE_CXX_LIBRARY_ARCHITECTURE})

set(DEPENDENCIES_graph_base fmt::fmt Threads::Threads OpenSSL::Crypto ${XXHASH_LIBRARY} ${GOMP_LIBRARY})
set(DEPENDENCIES_graph_ops Eigen3::Eigen)
set(DEPENDENCIES_graph_kernels ${DNNL_LIBRARY} ${HWY_LIBRARY})
set(DEPENDENCIES_graph_onnx ONNX::onnx_proto protobuf::libprotobuf)
set(DEPENDENCIES_passes_core nlohmann_json::nlohmann_json yaml-cpp::yaml-cpp ${CMAKE_DL_LIBS})
set(DEPENDENCIES_tools_data ${ZIP_LIBRARY} ZLIB::ZLIB PNG::PNG JPEG::JPEG)
set(DEPENDENCIES_tools CLI11::CLI11)
