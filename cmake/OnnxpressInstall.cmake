# Headers and a CMake package for plugins built out of tree (component "development").
include(OnnxpressAbi)
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS onnxpress RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT command)

set(headers ${CMAKE_INSTALL_INCLUDEDIR}/onnxpress)
foreach(header IN LISTS ONNXPRESS_PUBLIC_HEADERS)
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${header} DESTINATION ${headers}/${folder} COMPONENT development)
endforeach()
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/generated/onnxpress_abi.h
        DESTINATION ${headers}/generated COMPONENT development)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/onnxpress)
configure_package_config_file(cmake/onnxpressConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/onnxpressConfig.cmake
  INSTALL_DESTINATION ${package} PATH_VARS headers)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/onnxpressConfigVersion.cmake
  COMPATIBILITY ExactVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/onnxpressConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/onnxpressConfigVersion.cmake
        DESTINATION ${package} COMPONENT development)
